"""Calls that return when what they wrote, or found written, is durable.

WAIT and WAITAOF count for the writes of their own connection and hold it up meanwhile. So durable
calls have a connection to themselves, and those that come while one wait lasts go out together
after it, with one wait for all (group commit).

What a call finds was perhaps written by another connection: a run that is there already, a status
that a coordinator wrote. A wait would not cover it. So after the calls of a group, and before its
wait, a mark is written (a counter of the partition): servers write and replicate in order, so when
the mark is durable, all that the calls saw is. It must come after them, and on the one connection:
a server that lost its memory in between has closed that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from resolute.durability import Durability
from resolute.errors import DurabilityNotConfirmed, StoreUnavailable
from resolute.store.connection import REPLY_TIMEOUT, Arg, Command, Connection, Link, ServerReply
from resolute.store.keys import stats_beside
from resolute.store.proofs import Proof, find_proof
from resolute.store.script import Script, load_script, pack
from resolute.store.store import LOADS, PASSING, Store

MOST = 256  # calls of a group
LEAST_WAIT = 5.0  # s; under everysec an honest wait takes two
FRESH = 1.0  # s; a proof that was not used for so long is looked for anew
MARK = "waits"  # the counter in a partition's stats


class _Call:
    """A command in a group, and who waits for it."""

    __slots__ = ("command", "done", "reply", "script")

    def __init__(self, command: Command, script: Script | None, done: asyncio.Future[Any]) -> None:
        self.command = command
        self.script = script
        self.done = done
        self.reply: Any = None

    def settle(self, error: Exception | None) -> None:
        """Tell the caller, unless it has gone."""
        if self.done.done():
            return
        if isinstance(self.reply, ServerReply):
            error = self.reply
        if error is not None:
            self.done.set_exception(error)
        else:
            self.done.set_result(self.reply)


class _Group:
    """The durable calls of one connection, a group at a time."""

    def __init__(
        self,
        connection: Connection,
        level: Durability,
        within: float,
        find: Callable[[Connection], Awaitable[Proof]],
    ) -> None:
        self.connection = connection
        self.task: asyncio.Task[None] | None = None
        self._level = level
        self._timeout = within + REPLY_TIMEOUT
        self._find = find
        self._waiting: list[_Call] = []
        self._proof: Proof | None = None
        self._proved = 0.0

    @property
    def is_busy(self) -> bool:
        return self.task is not None and not self.task.done()

    async def run(self, command: Command, script: Script | None) -> Any:
        """The reply to a command that is durable now.

        Raises what `find_proof` does before anything is written, and DurabilityNotConfirmed.
        """
        call = _Call(command, script, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if not self.is_busy:
            self.task = asyncio.create_task(self._serve())
        return await call.done

    async def _serve(self) -> None:
        # A task of its own, so that a caller that is cancelled takes nobody's wait with it.
        while self._waiting:
            group = [call for call in self._waiting[:MOST] if not call.done.done()]
            del self._waiting[:MOST]
            try:
                error = await self._commit(group) if group else None
            except Exception as broken:
                error = broken
                for call in group:
                    call.reply = None  # of a connection that is gone: perhaps NOSCRIPT
            for call in group:
                call.settle(error)

    async def _commit(self, group: Sequence[_Call]) -> Exception | None:
        proof = await self._fresh_proof()
        mark = _mark_beside(group[0])
        replies = await self._send([*group, mark], proof)
        for reply in (mark.reply, *replies):
            if isinstance(reply, ServerReply) and reply.code in PASSING:
                return reply
            if isinstance(reply, ServerReply) and reply.code == "UNBLOCKED":
                # It became a replica while we waited: the new primary may know nothing of this.
                self.connection.close()
                return StoreUnavailable(str(reply))
        refused = str(mark.reply) if isinstance(mark.reply, ServerReply) else ""
        missing = refused or proof.find_missing(replies)
        if missing:
            self._proof = None
            return DurabilityNotConfirmed(self._level, missing)
        self._proved = time.monotonic()
        return None

    async def _fresh_proof(self) -> Proof:
        if self._proof is None or time.monotonic() - self._proved > FRESH:
            self._proof = None
            self._proof = await self._find(self.connection)
        return self._proof

    async def _send(self, calls: Sequence[_Call], proof: Proof) -> list[Any]:
        """Fill in the replies, scripts loaded where they must be; the replies to the proof."""
        lost, replies = await self._round(calls, proof)
        mark = calls[-1]  # again, as the last: it is what the proof is about
        for _ in range(LOADS):
            if not lost:
                break
            sources = {call.script.source for call in lost if call.script is not None}
            await self.connection.request_all([("SCRIPT", "LOAD", source) for source in sources])
            again = [call for call in lost if call is not mark]
            lost, replies = await self._round([*again, mark], proof)
        return replies

    async def _round(self, calls: Sequence[_Call], proof: Proof) -> tuple[list[_Call], list[Any]]:
        """Send calls and what proves them together; those whose script is unknown, the proof's."""
        commands = [*(call.command for call in calls), *proof.commands]
        replies = await self.connection.request_all(commands, self._timeout)
        for call, reply in zip(calls, replies, strict=False):
            call.reply = reply
        lost = [c for c in calls if isinstance(c.reply, ServerReply) and c.reply.code == "NOSCRIPT"]
        return lost, replies[len(calls) :]


def _mark_beside(call: _Call) -> _Call:
    """A write in the slot of a call; by a script that works on a full server too."""
    script = load_script("apply_writes")
    # EVALSHA has its first key at 3, HMGET and its like at 1.
    key = str(call.command[3 if call.script else 1])
    arguments: tuple[Arg, ...] = (pack(3), "HINCRBY", MARK, 1)
    command = ("EVALSHA", script.sha, 1, stats_beside(key), *arguments)
    return _Call(command, script, asyncio.get_running_loop().create_future())


class DurableStore(Store):
    """The same namespace, where a call returns when what it wrote or read is durable.

    A call may take `patience` (s) for the server to be there, and as long again for the proof, or
    LEAST_WAIT if that is longer; twice that where it came while another wait began.
    Beside what a Store raises: DurabilityUnavailable, DurabilityNotConfirmed.
    """

    def __init__(self, store: Store, level: Durability, replicas: int) -> None:
        link = Link(store.address, name=f"resolute-{level}")
        super().__init__(link, store.keys, store.patience, store.servers.topology)
        self.nonces = store.nonces
        self._level = level
        self._replicas = replicas
        self._within = max(store.patience, LEAST_WAIT)
        self._groups: dict[Connection, _Group] = {}

    async def call(
        self, name: str, keys: Sequence[str], common: bytes, arguments: Sequence[Arg] = ()
    ) -> Any:
        script = load_script(name)
        command = ("EVALSHA", script.sha, len(keys), *keys, common, *arguments)
        return await self._patiently(keys[0], lambda c: self._group_of(c).run(command, script))

    async def execute(self, *command: Arg) -> Any:
        key = self._key_of(command)
        return await self._patiently(key, lambda c: self._group_of(c).run(command, None))

    async def execute_all(self, commands: Sequence[Command]) -> list[Any]:
        return [await self.execute(*command) for command in commands]

    def _group_of(self, connection: Connection) -> _Group:
        group = self._groups.get(connection)
        if group is None:
            live = {c: g for c, g in self._groups.items() if not c.closed.done() or g.is_busy}
            group = _Group(connection, self._level, self._within, self._find)
            self._groups = {**live, connection: group}
        return group

    async def _find(self, connection: Connection) -> Proof:
        return await find_proof(connection, self._level, self._replicas, self._within)

    async def close(self) -> None:
        await super().close()
        tasks = [group.task for group in self._groups.values() if group.task is not None]
        if tasks:
            await asyncio.wait(tasks)


class Levels:
    """The stores of a namespace by their durability, each made when it is first needed."""

    def __init__(self, store: Store, replicas: int) -> None:
        self._fast = store
        self._replicas = replicas
        self._durable: dict[Durability, DurableStore] = {}

    def at(self, level: Durability) -> Store:
        """The store whose calls are so durable when they return."""
        if level is Durability.FAST:
            return self._fast
        found = self._durable.get(level)
        if found is None:
            found = self._durable[level] = DurableStore(self._fast, level, self._replicas)
        found.keys = self._fast.keys  # read again by a client that came before the first daemon
        return found

    async def close(self) -> None:
        for store in self._durable.values():
            await store.close()
