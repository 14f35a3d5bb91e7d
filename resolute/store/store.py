"""The store of one namespace: its keys, its link to Redis, and calls that survive a reconnect."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from resolute.errors import ConfigurationError, StoreUnavailable
from resolute.ids import nonces
from resolute.store.connection import Address, Arg, Command, Connection, Link, ServerReply, backoff
from resolute.store.keys import MAX_PARTITIONS, Keys, MetaKeys
from resolute.store.script import Script, load_script, pack

DEFAULT_URL = "redis://localhost:6379/0"
DEFAULT_NAMESPACE = "resolute"

# Errors that say "not now": the same call may succeed in a moment.
PASSING = frozenset(
    {
        "LOADING", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN", "BUSY", "READONLY", "MISCONF",
        "NOREPLICAS",
    }
)  # fmt: skip
# Of these, the ones that another server behind the same address may not answer.
DEMOTED = frozenset({"READONLY", "MASTERDOWN"})


LOADS = 5  # times that a script is loaded for one call


class Store:
    """A namespace in a Redis. `patience` (s) is how long a call outlasts a Redis that is away.

    Every script is idempotent, so a call whose reply was lost is simply sent again.
    """

    def __init__(self, link: Link, keys: Keys, patience: float) -> None:
        self.link = link
        self.keys = keys
        self.patience = patience
        self.nonces = nonces()
        self._is_used = False

    async def find_partitions(self) -> bool:
        """Whether the namespace is in use; until it is, `keys` are of no use either."""
        if not self._is_used:
            stored = await self.link.execute("GET", self.keys.meta.partitions)
            if stored is not None:
                self.keys = Keys(self.keys.meta.namespace, int(stored))
                self._is_used = True
        return self._is_used

    async def check_partitions(self) -> None:
        """Raises ConfigurationError where the namespace was given another number meanwhile."""
        stored = await self.execute("GET", self.keys.meta.partitions)
        if stored is not None and int(stored) != self.keys.count:
            raise ConfigurationError(
                f"namespace {self.keys.meta.namespace!r} has {int(stored)} partition(s) now, and"
                f" had {self.keys.count}: everything was deleted and begun anew; connect anew"
            )

    async def confirm_partitions(self) -> None:
        """Write the number of partitions anew where it was lost with everything else.

        Raises ConfigurationError where somebody was faster with another number: then all keys that
        are known here are wrong.
        """
        await _write_partitions(self.link, self.keys.meta, self.keys.count)

    @classmethod
    async def open(
        cls,
        url: str = DEFAULT_URL,
        namespace: str = DEFAULT_NAMESPACE,
        *,
        name: str = "resolute",
        patience: float = 10.0,
        partitions: int | None = None,
        wait: bool = False,
        only_look: bool = False,
    ) -> Store:
        """Connect, and read how many partitions the namespace has.

        The first to use a namespace writes that number (`partitions`, default 1); it never changes,
        so whoever may `only_look` (a client) leaves it to others: see `find_partitions`. A server
        that cannot be reached now is an error, unless we are to `wait` for it; one that says "not
        now" (it loads its file), or that was there a moment ago, is waited for as long as the
        patience lasts.
        """
        link = Link(Address(url), name=name)
        failures = 0
        give_up = time.monotonic() + patience
        try:
            while True:
                try:
                    meta = MetaKeys(namespace)
                    if only_look:
                        store = cls(link, Keys(namespace, 1), patience)
                        await store.find_partitions()
                        return store
                    count = await _write_partitions(link, meta, partitions)
                    return cls(link, Keys(namespace, count), patience)
                except StoreUnavailable:
                    was_there = link.generation > 0 and time.monotonic() < give_up
                    if not wait and not was_there:
                        raise
                except ServerReply as error:
                    if error.code not in PASSING or (not wait and time.monotonic() > give_up):
                        raise
                failures += 1
                await asyncio.sleep(backoff(failures))
        except BaseException:
            await link.close()
            raise

    async def close(self) -> None:
        await self.link.close()

    @property
    def address(self) -> Address:
        """Where the server is."""
        return self.link.address

    @property
    def is_connected(self) -> bool:
        """Whether there is a live connection at this moment."""
        return self.link.is_connected

    def separate_link(self, name: str) -> Link:
        """Another connection to the same server, for blocking reads or subscriptions."""
        return Link(self.link.address, name=name)

    def nonce(self) -> str:
        return next(self.nonces)

    async def call(
        self, name: str, keys: Sequence[str], common: bytes, arguments: Sequence[Arg] = ()
    ) -> Any:
        """Run a script, again if its reply was lost. Raises StoreUnavailable, ServerReply."""
        script = load_script(name)
        command = ("EVALSHA", script.sha, len(keys), *keys, common, *arguments)
        return await self._patiently(lambda c: _evaluate(c, script, command))

    async def execute(self, *command: Arg) -> Any:
        """Run one command that may be sent twice. Raises StoreUnavailable, ServerReply."""
        return await self._patiently(lambda connection: connection.request(command))

    async def execute_all(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands that may be sent twice, together; the first error is raised."""
        if not commands:
            return []
        return await self._patiently(lambda connection: _request_all(connection, commands))

    async def try_all(self, commands: Sequence[Command]) -> list[Any]:
        """As `execute_all`, but an error that does not pass comes as ServerReply in its place."""
        if not commands:
            return []
        return await self._patiently(lambda connection: _try_all(connection, commands))

    async def write_all(self, commands: Sequence[Command]) -> None:
        """Run commands on keys of one slot, together, even where memory is full.

        For what finishes, registers or wakes; never for what admits new work.
        """
        keys = [str(command[1]) for command in commands]
        arguments = [part for name, _, *rest in commands for part in (name, *rest)]
        counts = pack(*(len(command) - 1 for command in commands))
        await self.call("apply_writes", keys, counts, arguments)

    async def _patiently(self, attempt: Callable[[Connection], Awaitable[Any]]) -> Any:
        failures = 0
        give_up = time.monotonic() + self.patience
        while True:
            connection: Connection | None = None
            try:
                connection = await self.link.connection()
                return await attempt(connection)
            except StoreUnavailable:
                if time.monotonic() > give_up:
                    raise
            except ServerReply as error:
                if error.code not in PASSING or time.monotonic() > give_up:
                    raise
                if error.code in DEMOTED and connection is not None:
                    connection.close()
            failures += 1
            await asyncio.sleep(backoff(failures))


async def _request_all(connection: Connection, commands: Sequence[Command]) -> list[Any]:
    """The replies; the first error is raised: where it passes, all are sent again."""
    replies = await connection.request_all(commands)
    for reply in replies:
        if isinstance(reply, ServerReply):
            raise reply
    return replies


async def _try_all(connection: Connection, commands: Sequence[Command]) -> list[Any]:
    replies = await connection.request_all(commands)
    for reply in replies:
        if isinstance(reply, ServerReply) and reply.code in PASSING:
            raise reply
    return replies


async def _evaluate(connection: Connection, script: Script, command: Command) -> Any:
    for _ in range(LOADS):
        try:
            return await connection.request(command)
        except ServerReply as error:
            if error.code != "NOSCRIPT":
                raise
        # Not there yet, or flushed; perhaps once more before we are back.
        await connection.request(("SCRIPT", "LOAD", script.source))
    return await connection.request(command)


async def _write_partitions(link: Link, meta: MetaKeys, wanted: int | None) -> int:
    """The number of partitions, decided now unless it was before. Raises ConfigurationError."""
    if wanted is not None and not 1 <= wanted <= MAX_PARTITIONS:
        raise ConfigurationError(f"partitions: expected 1 to {MAX_PARTITIONS}, got {wanted}")
    stored = await link.execute("GET", meta.partitions)
    if stored is None:  # else nothing is written: a worker can start on a full server
        await link.execute("SET", meta.partitions, wanted or 1, "NX")
        stored = await link.execute("GET", meta.partitions)
    count = int(stored)
    if wanted is not None and count != wanted:
        raise ConfigurationError(
            f"namespace {meta.namespace!r} has {count} partition(s) and cannot be given {wanted}"
        )
    return count
