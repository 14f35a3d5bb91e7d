"""A real cluster: primaries that share the slots, replicas if wanted, and slots that are moved.

A slot moves as `redis-cli --cluster reshard` moves it, command by command; only which one is chosen
here, so that it is one with keys in it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from resolute.store.connection import Address, Arg, Link
from resolute.store.keys import SLOTS
from resolute.testing.server import EmbeddedServer, ServerBinary
from tests.support.system import until

KEYS_AT_ONCE = 20
NODE_TIMEOUT = 2000  # ms until a server that is silent counts as away


class Node:
    """A server of the cluster, and a link of the test to it."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.server = server
        self.link = Link(Address(server.url), name="mover")
        self.id = ""

    async def execute(self, *command: Arg) -> Any:
        return await self.link.execute(*command)


class ShardedServers:
    """The nodes of a cluster; `url` is that of one of them."""

    def __init__(self, primaries: list[Node], replicas: list[Node]) -> None:
        self.primaries = primaries
        self.replicas = replicas
        self.owners = [primaries[0]] * SLOTS
        self.moved = 0

    @property
    def nodes(self) -> list[Node]:
        return self.primaries + self.replicas

    @property
    def can_hand_over(self) -> bool:
        """Whether these servers can move slots as a whole."""
        binary = self.primaries[0].server.binary
        return binary.name == "valkey" and int(binary.version.partition(".")[0]) >= 9

    @property
    def url(self) -> str:
        return self.primaries[0].server.url

    async def form(self) -> None:
        """Share out the slots, and wait until everybody knows."""
        first = self.primaries[0]
        for number, node in enumerate(self.primaries):
            low = number * SLOTS // len(self.primaries)
            high = (number + 1) * SLOTS // len(self.primaries)
            await node.execute("CLUSTER", "ADDSLOTSRANGE", low, high - 1)
            await node.execute("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            self.owners[low:high] = [node] * (high - low)
        for node in self.nodes:
            node.id = str(await node.execute("CLUSTER", "MYID"), "ascii")
            await node.execute("CLUSTER", "MEET", "127.0.0.1", first.server.port)
        await until(self._all_met, "every server knows every other")
        for replica, primary in zip(self.replicas, self.primaries, strict=False):
            await replica.execute("CLUSTER", "REPLICATE", primary.id)
        await until(self._is_up, "the cluster is up")
        # It is that also for who has not heard yet which slots another one has.
        await until(self._agree, "all servers agree on who has which slots")

    async def _all_met(self) -> bool:
        known = [await node.execute("CLUSTER", "NODES") for node in self.nodes]
        return all(reply.count(b"\n") == len(self.nodes) for reply in known) and not any(
            b"handshake" in reply for reply in known
        )

    async def _is_up(self) -> bool:
        for node in self.nodes:
            if b"cluster_state:ok" not in await node.execute("CLUSTER", "INFO"):
                return False
        for replica in self.replicas:
            if b"master_link_status:up" not in await replica.execute("INFO", "replication"):
                return False
        return True

    async def move(self, slot: int, target: Node) -> None:
        """Give a slot with all its keys to another primary."""
        source = self.owners[slot]
        if source is target:
            return
        await target.execute("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
        await source.execute("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        port = target.server.port
        while keys := await source.execute("CLUSTER", "GETKEYSINSLOT", slot, KEYS_AT_ONCE):
            await source.execute(
                "MIGRATE", "127.0.0.1", port, "", 0, 5000, "REPLACE", "KEYS", *keys
            )
        for node in (target, source, *self.primaries):
            await node.execute("CLUSTER", "SETSLOT", slot, "NODE", target.id)
        self.owners[slot] = target
        self.moved += 1
        # Else what the source said just before may win by its epoch: each would name the other.
        await until(self._agree, "all servers agree on who has which slots")

    async def hand_over(self, slot: int, target: Node) -> None:
        """Give a slot to another primary as a whole, as Valkey 9 can."""
        source = self.owners[slot]
        if source is target:
            return
        await source.execute("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", slot, slot, "NODE", target.id)

        async def is_there() -> bool:
            rows = await target.execute("CLUSTER", "SLOTS")
            return any(row[0] <= slot <= row[1] and row[2][2] == target.id.encode() for row in rows)

        await until(is_there, "the slot was handed over")
        self.owners[slot] = target
        self.moved += 1
        await until(self._agree, "all servers agree on who has which slots")

    async def _agree(self) -> bool:
        views: set[tuple[tuple[bytes, ...], ...]] = set()
        for node in self.primaries:
            rows = (line.split() for line in (await node.execute("CLUSTER", "NODES")).splitlines())
            # id, config epoch, slots: what everybody must know alike.
            views.add(tuple(sorted((row[0], row[6], *row[8:]) for row in rows)))
        return len(views) == 1

    async def close(self) -> None:
        for node in self.nodes:
            await node.link.close()


@asynccontextmanager
async def sharded(
    folder: Path, binary: ServerBinary, *, primaries: int = 3, replicas: int = 0
) -> AsyncGenerator[ShardedServers]:
    """A cluster that is up, until the `async with` ends."""
    options = (
        "--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT),
        "--cluster-require-full-coverage", "no",
    )  # fmt: skip
    async with AsyncExitStack() as stack:
        nodes = [
            Node(
                stack.enter_context(
                    EmbeddedServer(folder / f"node-{number}", binary=binary, options=options)
                )
            )
            for number in range(primaries + replicas)
        ]
        cluster = ShardedServers(nodes[:primaries], nodes[primaries:])
        stack.push_async_callback(cluster.close)
        await cluster.form()
        yield cluster
