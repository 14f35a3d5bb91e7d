"""The store of one namespace: its keys, its link to Redis, and calls that survive a reconnect."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from resolute.errors import ConfigurationError, StoreUnavailable
from resolute.ids import nonces
from resolute.store.connection import Address, Arg, Command, Connection, Link, ServerReply, backoff
from resolute.store.keys import MAX_PARTITIONS, Keys, slot_of
from resolute.store.script import Script, load_script, pack
from resolute.store.servers import Epoch, Servers, Topology, key_of

DEFAULT_URL = "redis://localhost:6379/0"
DEFAULT_NAMESPACE = "resolute"

# Errors that say "not now": the same call may succeed in a moment.
PASSING = frozenset(
    {
        "LOADING", "MASTERDOWN", "TRYAGAIN", "ASK", "MOVED", "CLUSTERDOWN", "BUSY", "READONLY",
        "MISCONF", "NOREPLICAS",
    }
)  # fmt: skip
# Of these, the ones that another server behind the same address may not answer.
DEMOTED = frozenset({"READONLY", "MASTERDOWN"})


LOADS = 5  # times that a script is loaded for one call
REDIRECTIONS = 5  # that one call follows at once


class Store:
    """A namespace in a Redis. `patience` (s) is how long a call outlasts a Redis that is away.

    Every script is idempotent, so a call whose reply was lost is simply sent again.
    `link` leads to the server, or to any one of a cluster.
    """

    def __init__(
        self, link: Link, keys: Keys, patience: float, topology: Topology | None = None
    ) -> None:
        self.servers = Servers(link, topology)
        self.keys = keys
        self.patience = patience
        self.nonces = nonces()
        self._is_used = False

    async def find_partitions(self) -> bool:
        """Whether the namespace is in use; until it is, `keys` are of no use either."""
        if not self._is_used:
            stored = await self._once("GET", self.keys.meta.partitions)
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
        await self._write_partitions(self.keys.count)

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
        store = cls(link, Keys(namespace, 1), patience)
        failures = 0
        give_up = time.monotonic() + patience
        try:
            while True:
                try:
                    if only_look:
                        await store.find_partitions()
                    else:
                        store.keys = Keys(namespace, await store._write_partitions(partitions))
                    return store
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
            await store.close()
            raise

    async def close(self) -> None:
        await self.servers.close()

    @property
    def link(self) -> Link:
        """The link that everything began with."""
        return self.servers.home

    @property
    def address(self) -> Address:
        """Where the server is, or one of the cluster."""
        return self.link.address

    @property
    def is_connected(self) -> bool:
        """Whether there is a live connection to where the namespace's own keys are."""
        return self.servers.link_of(self.keys.meta.base).is_connected

    @property
    def generation(self) -> int:
        """How many connections there have been."""
        return self.servers.generation

    @property
    def registry_epoch(self) -> Epoch:
        """Which connection, to which server, leads to the registry."""
        return self.servers.epoch_of(self.keys.meta.base)

    def separate_link(self, name: str, on_push: Callable[[list[Any]], None] | None = None) -> Link:
        """Another connection, to block or subscribe; in a cluster any server tells everything."""
        base = self.keys.meta.base
        return Link(lambda: self.servers.topology.address_of(base), name=name, on_push=on_push)

    def nonce(self) -> str:
        return next(self.nonces)

    async def call(
        self, name: str, keys: Sequence[str], common: bytes, arguments: Sequence[Arg] = ()
    ) -> Any:
        """Run a script, again if its reply was lost. Raises StoreUnavailable, ServerReply."""
        script = load_script(name)
        command = ("EVALSHA", script.sha, len(keys), *keys, common, *arguments)
        return await self._patiently(keys[0], lambda c: _evaluate(c, script, command))

    async def execute(self, *command: Arg) -> Any:
        """Run one command that may be sent twice. Raises StoreUnavailable, ServerReply.

        One without a key goes to the server that has the namespace's own keys.
        """
        return await self._patiently(self._key_of(command), lambda c: c.request(command))

    async def execute_all(self, commands: Sequence[Command]) -> list[Any]:
        """Run commands that may be sent twice, together; the first error is raised."""
        if not commands:
            return []
        return await self._spread(commands, _request_all)

    async def try_all(self, commands: Sequence[Command]) -> list[Any]:
        """As `execute_all`, but an error that does not pass comes as ServerReply in its place."""
        if not commands:
            return []
        return await self._spread(commands, _try_all)

    async def write_all(self, commands: Sequence[Command]) -> None:
        """Run commands on keys of one slot, together, even where memory is full.

        For what finishes, registers or wakes; never for what admits new work.
        """
        keys = [str(command[1]) for command in commands]
        arguments = [part for name, _, *rest in commands for part in (name, *rest)]
        counts = pack(*(len(command) - 1 for command in commands))
        await self.call("apply_writes", keys, counts, arguments)

    def _key_of(self, command: Command) -> str:
        return key_of(command) or self.keys.meta.base

    async def _spread(
        self,
        commands: Sequence[Command],
        attempt: Callable[[Connection, Sequence[Command]], Awaitable[list[Any]]],
    ) -> list[Any]:
        """Send commands together to each server that has some of their keys."""
        if not self.servers.topology.is_cluster:
            key = self._key_of(commands[0])
            return await self._patiently(key, lambda c: attempt(c, commands))
        # By slot and not by server: where one has moved, the others need not be sent again.
        places: dict[int, list[int]] = {}
        for at, command in enumerate(commands):
            places.setdefault(slot_of(self._key_of(command)), []).append(at)
        parts = [[commands[at] for at in some] for some in places.values()]
        tasks = [
            asyncio.create_task(
                self._patiently(self._key_of(part[0]), lambda c, part=part: attempt(c, part))
            )
            for part in parts
        ]
        try:
            replies = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        found: list[Any] = [None] * len(commands)
        for some, part in zip(places.values(), replies, strict=True):
            for at, reply in zip(some, part, strict=True):
                found[at] = reply
        return found

    async def _once(self, *command: Arg) -> Any:
        """One try, wherever the key is."""
        return await self._patiently(self._key_of(command), lambda c: c.request(command), 0.0)

    async def _patiently(
        self,
        key: str,
        attempt: Callable[[Connection], Awaitable[Any]],
        patience: float | None = None,
    ) -> Any:
        failures = redirections = 0
        give_up = time.monotonic() + (self.patience if patience is None else patience)
        while True:
            try:
                return await self._attempt(key, attempt)
            except StoreUnavailable:
                if time.monotonic() >= give_up:
                    raise
                await self.servers.look_again()
            except ServerReply as error:
                redirections += error.code == "MOVED"
                if error.code == "MOVED" and redirections <= REDIRECTIONS:
                    continue
                if error.code not in PASSING or time.monotonic() >= give_up:
                    raise
                if error.code in ("MOVED", "CLUSTERDOWN"):  # two may each name the other
                    await self.servers.look_again()
            failures += 1
            await asyncio.sleep(backoff(failures))

    async def _attempt(self, key: str, attempt: Callable[[Connection], Awaitable[Any]]) -> Any:
        """One try at the server that should have the key; what it says of others is noted."""
        servers = self.servers
        if not servers.topology.is_known:
            await servers.look()
        link = servers.link_of(key)
        connection = await link.connection()
        try:
            return await attempt(connection)
        except ServerReply as error:
            if error.code == "MOVED":
                servers.topology.moved(str(error), link.address)
            elif error.code in DEMOTED:
                connection.close()
            raise

    async def _write_partitions(self, wanted: int | None) -> int:
        """The number of partitions, decided now unless it was before. Raises ConfigurationError."""
        if wanted is not None and not 1 <= wanted <= MAX_PARTITIONS:
            raise ConfigurationError(f"partitions: expected 1 to {MAX_PARTITIONS}, got {wanted}")
        meta = self.keys.meta
        stored = await self._once("GET", meta.partitions)
        if stored is None:  # else nothing is written: a worker can start on a full server
            await self._once("SET", meta.partitions, wanted or 1, "NX")
            stored = await self._once("GET", meta.partitions)
        count = int(stored)
        if wanted is not None and count != wanted:
            raise ConfigurationError(
                f"namespace {meta.namespace!r} has {count} partition(s) and cannot be given"
                f" {wanted}"
            )
        return count


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
