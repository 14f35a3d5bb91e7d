"""Blocking reads as a member of a group, from streams of any number of partitions.

One server is asked for all streams at once. In a cluster a read can have the streams of one slot
only, and one that blocks has its connection to itself, so there each slot has its own. A server
that is away holds up no other: its reads are left behind, and picked up when they are answered.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from resolute.errors import ResoluteError, StoreUnavailable
from resolute.store.connection import Connection, Link, ServerReply
from resolute.store.keys import slot_of
from resolute.store.store import PASSING, Store
from resolute.store.streams import Message, read_on

LAG = 0.1  # s that a server may be slower than another before it is not waited for

Found = dict[str, list[Message]]


class GroupReader:
    """Reads for one consumer of a group. `name` is that of its connections."""

    def __init__(self, store: Store, name: str, group: str, consumer: str) -> None:
        self._store = store
        self._name = name
        self._group = group
        self._consumer = consumer
        self._link = store.separate_link(name)
        self._lanes: dict[int, _Lane] = {}  # by slot
        self._late: Exception | None = None

    @property
    def generation(self) -> int:
        """How many connections there have been: what went into one that broke comes no more."""
        return self._link.generation + sum(lane.generation for lane in self._lanes.values())

    async def connect(self, streams: Collection[str]) -> None:
        """Be connected to a server that has some of the streams. Raises StoreUnavailable."""
        if not self._is_in_cluster:
            await self._link.connection()
            return
        for lane in self._lanes_of(streams):
            lane.open()
        if any(lane.is_open for lane in self._lanes.values()):
            return
        await _first([lane.opening for lane in self._lanes.values() if lane.opening], None)
        if not any(lane.is_open for lane in self._lanes.values()):
            await self._store.servers.look_again()
            raise StoreUnavailable("no server that has the streams can be reached")

    async def read(self, streams: Sequence[str], count: int, block_ms: int | None) -> Found:
        """New entries of the streams, at most `count` of each; blocks `block_ms` unless None.

        Raises ServerReply with code NOGROUP or UNBLOCKED where a stream was lost; StoreUnavailable,
        also where the server is a replica by now, or a slot is moving.
        """
        await self.connect(streams)
        if not self._is_in_cluster:
            connection = await self._link.connection()
            return await read_on(connection, self._group, self._consumer, streams, count, block_ms)
        by_slot: dict[int, list[str]] = {}
        for stream in streams:
            by_slot.setdefault(slot_of(stream), []).append(stream)
        found = await self._collect(self._send(by_slot, count, None))
        if found or block_ms is None:
            return found
        blocked = self._send(by_slot, count, block_ms)
        reads = [lane.read for lane in self._lanes.values() if lane.read is not None]
        opening = [o for o in (lane.opening for lane in self._lanes.values()) if o and not o.done()]
        await _first(reads + opening, block_ms / 1000)
        await _all([asyncio.create_task(lane.unblock()) for lane in blocked])
        return await self._collect(blocked)

    async def close(self) -> None:
        await self._link.close()
        for lane in self._lanes.values():
            await lane.close()

    @property
    def _is_in_cluster(self) -> bool:
        return self._store.servers.topology.is_cluster

    def _lanes_of(self, streams: Collection[str]) -> list[_Lane]:
        slots = {slot_of(stream): stream for stream in streams}
        for slot, stream in slots.items():
            if slot not in self._lanes:
                self._lanes[slot] = _Lane(self._store, stream, self._name)
        return [self._lanes[slot] for slot in slots]

    def _send(
        self, by_slot: Mapping[int, Sequence[str]], count: int, block_ms: int | None
    ) -> list[_Lane]:
        """Ask wherever no read is under way; the lanes where that is."""
        sent: list[_Lane] = []
        for slot, streams in by_slot.items():
            lane = self._lanes[slot]
            if lane.read is not None or lane.connection is None or not lane.is_open:
                continue
            lane.read = asyncio.create_task(
                read_on(lane.connection, self._group, self._consumer, streams, count, block_ms)
            )
            sent.append(lane)
        return sent

    async def _collect(self, sent: Sequence[_Lane]) -> Found:
        """What has come, there and elsewhere; an error is raised when nothing else has."""
        await _all([lane.read for lane in sent if lane.read is not None])
        found: Found = {}
        for lane in self._lanes.values():
            if lane.read is None or not lane.read.done():
                continue
            try:
                found |= lane.read.result()
            except ResoluteError as error:
                self._late = lane.failed(error)
            lane.read = None
        if not found and self._late is not None:
            late, self._late = self._late, None
            raise late
        return found


async def _first(tasks: Sequence[asyncio.Task[Any]], timeout: float | None) -> None:
    if tasks:
        await asyncio.wait(tasks, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)


async def _all(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Wait for tasks, but for those that are late."""
    if tasks:
        await asyncio.wait(tasks, timeout=LAG)


class _Lane:
    """The connection for the streams of one slot, and the read that is under way there."""

    def __init__(self, store: Store, stream: str, name: str) -> None:
        self.slot = slot_of(stream)
        self._servers = store.servers
        self._link = Link(lambda: store.servers.topology.address_of(stream), name=name)
        self._address = self._link.address
        self._id = 0
        self.connection: Connection | None = None
        self.opening: asyncio.Task[None] | None = None
        self.read: asyncio.Task[Found] | None = None

    @property
    def generation(self) -> int:
        return self._link.generation

    @property
    def is_open(self) -> bool:
        return self.connection is not None and not self.connection.closed.done()

    @property
    def is_opening(self) -> bool:
        return self.opening is not None and not self.opening.done()

    def open(self) -> None:
        """Connect, in the background, unless it is connected."""
        if not self.is_open and not self.is_opening:
            self.opening = asyncio.create_task(self._open())

    async def _open(self) -> None:
        self._address = self._link.address
        try:
            connection = await self._link.connection()
        except ResoluteError:
            await self._servers.look_again()
            return
        try:
            self._id = int(await connection.request(("CLIENT", "ID")))
        except ServerReply:
            self._id = 0  # we may not know it: then a read blocks as long as it blocks
        except ResoluteError:
            return
        self.connection = connection

    async def unblock(self) -> None:
        """Let the read come back with what it has, by another connection to the same server."""
        if self.read is not None and not self.read.done() and self._id:
            with contextlib.suppress(ResoluteError):
                await self._servers.link_to(self._address).execute("CLIENT", "UNBLOCK", self._id)

    def failed(self, error: ResoluteError) -> ResoluteError:
        """What a read's error is to who reads; the lane goes where the slot is now."""
        if not isinstance(error, ServerReply):
            return error
        if error.code == "MOVED":
            self._servers.topology.moved(str(error), self._address)
            if self.connection is not None:
                self.connection.close()
        elif error.code not in PASSING:
            return error
        return StoreUnavailable(f"a slot is moving: {error}")

    async def close(self) -> None:
        tasks: list[asyncio.Task[Any]] = [one for one in (self.opening, self.read) if one]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._link.close()
