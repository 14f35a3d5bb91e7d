"""Outputs that did not come with the claim: fetched when an input function asks for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resolute.engine.preloaded import OutputsAway
from resolute.engine.reading import field_of
from resolute.errors import ErrorInfo, StoreUnavailable
from resolute.model.cursors import cursor_field
from resolute.model.flow import Flow
from resolute.model.plan import Run, item_key
from resolute.model.state import CURSOR, ONE
from resolute.store.keys import Partition
from resolute.store.nodes import Held
from resolute.store.runs import decode_error
from resolute.store.store import Store
from resolute.store.sync import SyncReader

SIBLINGS = 1000


class RemoteOutputs:
    """Reads one run's hash on a connection that blocks: an input function is no coroutine.

    With a key come up to 1,000 others of its step: who reads one usually reads them all.
    """

    def __init__(
        self,
        reader: SyncReader,
        partition: Partition,
        run: str,
        flow: Flow[Any, Any],
        cursors: str,
        whole: Callable[[bytes], bytes],
    ) -> None:
        self.whole = whole  # blocks, too: where it may be called, this is in a thread
        self._reader = reader
        self._cursors = cursors
        self._key = partition.flow(run)
        self._flow = flow
        self._fetched: dict[str, bytes | None] = {}
        self._items: dict[str, bytes | None] = {}

    def get(self, key: str) -> bytes | None:
        if key.startswith(CURSOR):
            name = key.removeprefix(CURSOR)
            if self._flow.cursors is not None:
                return self._flow.cursors.load(self._flow.namespace, name)
            field = cursor_field(self._flow.namespace, name)
            return self._read(field, of=self._cursors)[0]
        if key.startswith(ONE):
            return self._read(field_of(self._flow, key))[0]
        if "[" in key:
            return self._item(key)
        if key not in self._fetched:
            wanted = [key, *(other for other in self._siblings(key) if other != key)][:SIBLINGS]
            values = self._read(*(field_of(self._flow, name) for name in wanted))
            self._fetched.update(zip(wanted, values, strict=True))
        return self._fetched[key]

    def _item(self, key: str) -> bytes | None:
        """One of many under a name, with those after it; the ones before are not kept."""
        if key not in self._items:
            name, _, number = key[:-1].partition("[")
            first = int(number)
            wanted = [item_key(name, index) for index in range(first, first + SIBLINGS)]
            values = self._read(*(field_of(self._flow, one) for one in wanted))
            self._items = dict(zip(wanted, values, strict=True))
        return self._items[key]

    def keys(self) -> list[str]:
        try:
            names = self._reader.hkeys(self._key)
        except StoreUnavailable as error:
            raise OutputsAway(str(error)) from error
        return [name[2:] for name in names if name.startswith("o:") and "[" not in name]

    def input(self) -> bytes:
        return self._read("input")[0] or b"\xc0"

    def error(self, key: str) -> ErrorInfo | None:
        return decode_error(self._read(f"x:{key}")[0])

    def _read(self, *fields: str, of: str = "") -> list[bytes | None]:
        try:
            return self._reader.hmget(of or self._key, fields)
        except StoreUnavailable as error:
            raise OutputsAway(str(error)) from error

    def _siblings(self, key: str) -> list[str]:
        for instruction in self._flow.plan.instructions:
            if isinstance(instruction, Run):
                names = [node.key for node in instruction.nodes]
                if key in names:
                    at = max(0, names.index(key) - SIBLINGS // 2)
                    return names[at : at + SIBLINGS]
        return []


class Readers:
    """The two connections on which functions read: one blocks the loop, one is for threads."""

    def __init__(self, store: Store, whole: Callable[[bytes], bytes]) -> None:
        self._cursors = store.keys.meta.cursors
        self._whole = whole
        self._loop = SyncReader(store)
        self._threads = SyncReader(store)

    def on_loop(self, held: Held, flow: Flow[Any, Any]) -> RemoteOutputs:
        """Outputs of the run of an entry, to be read where nothing is in the storage."""
        return self._of(self._loop, held, flow)

    def in_thread(self, held: Held, flow: Flow[Any, Any]) -> RemoteOutputs:
        """The same, to be read in a thread."""
        return self._of(self._threads, held, flow)

    def _of(self, reader: SyncReader, held: Held, flow: Flow[Any, Any]) -> RemoteOutputs:
        run = held.entry.flow
        return RemoteOutputs(reader, held.partition, run, flow, self._cursors, self._whole)

    def close(self) -> None:
        self._loop.close()
        self._threads.close()
