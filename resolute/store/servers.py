"""Which server a key is on: the one server there is, or a primary of a cluster.

A server in a cluster is asked for the slots once (CLUSTER SLOTS), and again when one of them is
away. What has moved since then its redirection says (MOVED). While a slot is moving (ASK) its
partition waits: a script touches several keys, and some are here and some are there.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from typing import Any

from resolute.errors import StoreUnavailable
from resolute.store.connection import Address, Command, Connection, Link, ServerReply
from resolute.store.keys import SLOTS, slot_of

log = logging.getLogger(__name__)

LOOK_PERIOD = 0.5  # s between looks for where the slots are now
LOOK_TIMEOUT = 2.0  # s for one server to answer
# Who answers so is in no cluster, is too old for one, or does not let us know.
IN_NO_CLUSTER = frozenset({"ERR", "NOPERM"})
WITHOUT_KEY = frozenset({"TIME", "INFO", "CONFIG", "PING", "CLIENT", "FLUSHALL", "SCRIPT"})
SECOND_WORD = frozenset({"XINFO", "XGROUP", "OBJECT"})  # of these the key comes after one more


def key_of(command: Command) -> str:
    """The key that says where a command goes; '' for one without."""
    name = str(command[0])
    place = 2 if name in SECOND_WORD else 1
    return "" if name in WITHOUT_KEY or place >= len(command) else str(command[place])


class Topology:
    """Where the slots are. Shared by all connections of a namespace, and read in threads."""

    def __init__(self, home: Address) -> None:
        self.home = home
        self.is_cluster = False
        self.is_known = False
        self._owners: list[Address] = []
        self._members: dict[tuple[str, int], Address] = {}  # replicas too

    def address_of(self, key: str) -> Address:
        """The server that has a key, as far as is known."""
        return self._owners[slot_of(key)] if self.is_cluster else self.home

    @property
    def primaries(self) -> list[Address]:
        return list(dict.fromkeys(self._owners)) if self.is_cluster else [self.home]

    @property
    def members(self) -> list[Address]:
        """Everybody who may know where the slots are."""
        return list(self._members.values()) or [self.home]

    def read(self, rows: Any, asked: Address) -> None:
        """Take over the reply of CLUSTER SLOTS: first, last, primary and replicas of each range."""
        owners = self._owners or [asked] * SLOTS
        members: dict[tuple[str, int], Address] = {}
        for first, last, *nodes in rows:
            found = [self._at(asked, node[0], int(node[1])) for node in nodes]
            members.update({(one.host, one.port): one for one in found})
            owners[first : last + 1] = [found[0]] * (last + 1 - first)
        self._owners, self._members = owners, members
        self._become_known(is_cluster=True)

    def moved(self, redirection: str, asked: Address) -> None:
        """Take over ``MOVED <slot> <host>:<port>``."""
        _, slot, endpoint = redirection.split(" ")[:3]
        host, _, port = endpoint.rpartition(":")
        owner = self._at(asked, host.encode(), int(port))
        if not self._owners:
            self._owners = [asked] * SLOTS
        self._owners[int(slot)] = owner
        self._members[owner.host, owner.port] = owner
        self._become_known(is_cluster=True)

    def is_single(self) -> None:
        """There is no cluster."""
        self._become_known(is_cluster=False)

    def _become_known(self, *, is_cluster: bool) -> None:
        if is_cluster and not self.is_cluster:
            log.info("%s is in a cluster of %d primaries", self.home, len(set(self._owners)))
        self.is_cluster, self.is_known = is_cluster, True

    def _at(self, asked: Address, host: bytes | None, port: int) -> Address:
        """An address as `asked` gives it; where it knows no host, that is its own."""
        name = str(host, "utf-8") if host and host != b"?" else asked.host
        return self._members.get((name, port)) or self.home.at(name, port)


Epoch = tuple[Address, int]  # a server, and which connection to it


class Servers:
    """A link to each server that is needed, by key."""

    def __init__(self, home: Link, topology: Topology | None = None) -> None:
        self.home = home
        self.topology = topology or Topology(home.address)
        self._links: dict[Address, Link] = {self.topology.home: home}
        self._looked = 0.0
        self._looking: asyncio.Task[None] | None = None

    @property
    def generation(self) -> int:
        """How many connections there have been."""
        return sum(link.generation for link in self._links.values())

    def link_of(self, key: str) -> Link:
        """The link to the server that has a key."""
        return (
            self.link_to(self.topology.address_of(key)) if self.topology.is_cluster else self.home
        )

    def epoch_of(self, key: str) -> Epoch:
        """Which connection, to which server, leads to a key."""
        link = self.link_of(key)
        return link.address, link.generation

    def link_to(self, address: Address) -> Link:
        link = self._links.get(address)
        if link is None:
            link = self._links[address] = Link(address, name=self.home.name)
        return link

    def primaries(self) -> list[Link]:
        return [self.link_to(address) for address in self.topology.primaries]

    async def look(self) -> None:
        """Learn whether this is a cluster. Raises StoreUnavailable, ServerReply."""
        await _read_slots(await self.home.connection(), self.topology, self.home.address)

    async def look_again(self) -> None:
        """After something went wrong in a cluster: ask whoever answers first. Never raises."""
        if not self.topology.is_cluster:
            return
        if self._looking is None or self._looking.done():
            if time.monotonic() - self._looked < LOOK_PERIOD:
                return
            self._looked = time.monotonic()
            self._looking = asyncio.create_task(self._ask_around())
        await asyncio.wait([self._looking])

    async def _ask_around(self) -> None:
        members = self.topology.members
        random.shuffle(members)
        asked = [asyncio.create_task(self._ask(address)) for address in members]
        try:
            for first in asyncio.as_completed(asked):
                if await first:
                    return
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def _ask(self, address: Address) -> bool:
        try:
            async with asyncio.timeout(LOOK_TIMEOUT):
                connection = await self.link_to(address).connection()
                await _read_slots(connection, self.topology, address)
        except (StoreUnavailable, ServerReply, TimeoutError) as error:
            log.debug("where the slots are: %s", error)
            return False
        return True

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        for link in self._links.values():
            await link.close()


async def _read_slots(connection: Connection, topology: Topology, asked: Address) -> None:
    """Raises StoreUnavailable, ServerReply for an error that passes."""
    try:
        rows = await connection.request(("CLUSTER", "SLOTS"))
    except ServerReply as error:
        if error.code not in IN_NO_CLUSTER:
            raise
        rows = []
    if rows and isinstance(rows, list):
        topology.read(rows, asked)
    elif not topology.is_cluster:
        topology.is_single()
