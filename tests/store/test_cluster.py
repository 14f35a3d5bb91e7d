"""A namespace on a cluster: every call finds its server, also while slots move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from resolute.client.client import Client
from resolute.client.run import FlowRun
from resolute.errors import ServerUnsuitable, StoreUnavailable
from resolute.status import RunStatus
from resolute.store import streams
from resolute.store.connection import Address, Link, ServerReply
from resolute.store.keys import Keys, slot_of
from resolute.store.reading import GroupReader
from resolute.store.script import GROUP_WORKERS
from resolute.store.server import check, run_ids
from resolute.store.servers import key_of
from resolute.store.store import Store
from resolute.store.sync import SyncReader
from resolute.testing.server import ServerBinary
from tests.support.flows import chain
from tests.support.keyspace import all_keys, erase
from tests.support.leaks import find_leaks
from tests.support.sharded import Node, ShardedServers, sharded
from tests.support.stage import Stage
from tests.support.system import until
from tests.support.tour import tour

pytestmark = pytest.mark.timeout(120)

FLOW = chain("a", "b")


class World:
    """A cluster and a store of it that a test closes with it."""

    def __init__(self, servers: ShardedServers, store: Store) -> None:
        self.servers = servers
        self.store = store
        self.stage = Stage(store)

    def owner(self, key: str) -> Node:
        return self.servers.owners[slot_of(key)]

    async def move(self, key: str) -> Node:
        """Give the slot of a key to the next primary; to which."""
        primaries = self.servers.primaries
        at = primaries.index(self.owner(key))
        target = primaries[(at + 1) % len(primaries)]
        await self.servers.move(slot_of(key), target)
        return target


@pytest.fixture
def world(
    tmp_path: Path, server_binary: ServerBinary, runner: asyncio.Runner
) -> Callable[..., Any]:
    @asynccontextmanager
    async def made(replicas: int = 0, patience: float = 30.0) -> AsyncGenerator[World]:
        async with sharded(tmp_path / "cluster", server_binary, replicas=replicas) as servers:
            store = await Store.open(servers.url, "sharded", partitions=3, patience=patience)
            try:
                yield World(servers, store)
            finally:
                await store.close()

    return made


async def test_every_script_finds_its_server(world: Callable[..., Any]):
    async with world() as on:
        await tour(on.store)
        for node in on.servers.primaries:
            assert await node.execute("DBSIZE") > 0
        assert not await find_leaks(on.store)
        await erase(on.store)
        assert await all_keys(on.store) == []


async def test_what_is_sent_together_comes_back_in_its_order(world: Callable[..., Any]):
    async with world() as on:
        keys = [f"{partition.tag}:{n}" for n in range(3) for partition in on.store.keys.partitions]
        await on.store.execute_all([("SET", key, key) for key in keys])
        assert len({on.owner(key) for key in keys}) == 3
        for _ in range(2):
            found = await on.store.execute_all([("GET", key) for key in keys])
            assert found == [key.encode() for key in keys]
            await on.move(keys[1])


async def test_a_run_goes_on_where_its_slot_is(world: Callable[..., Any]):
    """Also for who has known the old place only, and who only waits for the end."""
    async with world() as on:
        await on.stage.begin_run(FLOW)
        other = await Store.open(on.servers.url, "sharded", patience=30.0)
        client = Client(other)
        ending = asyncio.create_task(FlowRun[Any](client, "run").result())
        await on.move(on.stage.of("run").inbox)
        await on.move(on.store.keys.meta.base)
        assert await on.stage.work() == 2
        assert await on.stage.status() is RunStatus.COMPLETED
        await ending
        await client.close()
        await other.close()


async def test_a_blocked_read_follows_its_slot(world: Callable[..., Any]):
    async with world() as on:
        keys = on.store.keys
        names = [partition.queue("q") for partition in keys.partitions]
        for partition, name in zip(keys.partitions, names, strict=True):
            await streams.ensure_group(on.store, partition, name, GROUP_WORKERS)
        reader = GroupReader(on.store, "reader", GROUP_WORKERS, "me")

        async def read_until(count: int) -> dict[str, list[bytes | None]]:
            found: dict[str, list[bytes | None]] = {}
            while sum(map(len, found.values())) < count:
                try:
                    for name, messages in (await reader.read(names, 10, 60_000)).items():
                        found.setdefault(name, []).extend(m.payload for m in messages)
                except (StoreUnavailable, ServerReply):  # its slot was moved under it
                    continue
            return found

        reading = asyncio.create_task(read_until(3))
        await until(lambda: blocked(on.servers), "it waits on every server")
        await on.move(names[1])
        for name in names:
            await on.store.execute("XADD", name, "*", "e", name)
        assert await reading == {name: [name.encode()] for name in names}
        await reader.close()
        await erase(on.store)


async def blocked(servers: ShardedServers) -> bool:
    infos = [await node.execute("INFO", "clients") for node in servers.primaries]
    return all(b"blocked_clients:1" in info for info in infos)


async def test_a_server_that_is_away_holds_up_no_reads_from_the_others(world: Callable[..., Any]):
    async with world() as on:
        keys = on.store.keys
        names = [partition.queue("q") for partition in keys.partitions]
        for partition, name in zip(keys.partitions, names, strict=True):
            await streams.ensure_group(on.store, partition, name, GROUP_WORKERS)
        reader = GroupReader(on.store, "reader", GROUP_WORKERS, "me")

        async def read_until(count: int) -> set[str]:
            found: set[str] = set()
            while len(found) < count:
                found |= (await reader.read(names, 1, 60_000)).keys()
            return found

        reading = asyncio.create_task(read_until(2))
        await until(lambda: blocked(on.servers), "it waits on every server")
        frozen = on.owner(names[0]).server
        frozen.pause()
        try:
            for name in names[1:]:
                await on.store.execute("XADD", name, "*", "e", "x")
            assert await reading == set(names[1:])
        finally:
            frozen.resume()
        await reader.close()
        await erase(on.store)


async def test_a_call_waits_while_its_slot_is_between_two_servers(world: Callable[..., Any]):
    async with world() as on:
        inbox = on.stage.of("run").inbox
        source = on.owner(inbox)
        target = next(node for node in on.servers.primaries if node is not source)
        await on.stage.offer(FLOW)
        await on.store.execute("SET", f"{on.stage.of('run').tag}:here", "x")
        await target.execute("CLUSTER", "SETSLOT", slot_of(inbox), "IMPORTING", source.id)
        await source.execute("CLUSTER", "SETSLOT", slot_of(inbox), "MIGRATING", target.id)
        starting = asyncio.create_task(on.stage.start(FLOW))
        done, _ = await asyncio.wait([starting], timeout=0.3)
        assert not done
        await on.servers.move(slot_of(inbox), target)
        assert await starting == "OK"
        assert await on.stage.work() == 2


async def test_reads_in_threads_follow_the_slots(world: Callable[..., Any]):
    async with world() as on:
        key = f"{on.store.keys.partitions[0].tag}:hash"
        await on.store.execute("HSET", key, "field", "value")
        reader = SyncReader(on.store)
        for _ in range(2):
            assert await asyncio.to_thread(reader.hmget, key, ["field"]) == [b"value"]
            await on.move(key)
        assert await asyncio.to_thread(reader.hkeys, key) == ["field"]
        reader.close()


async def test_calls_go_on_when_a_replica_takes_over(world: Callable[..., Any]):
    """Its clients know it from the others: the one that they came by is the one that is gone."""
    async with world(replicas=3) as on:
        for partition in on.store.keys.partitions:
            await on.store.execute("SET", f"{partition.tag}:x", "x")
        before = await run_ids(on.store)
        for node in on.servers.primaries:
            assert await node.execute("WAIT", 1, 5000) == 1
        on.servers.primaries[0].server.kill()
        found = [await on.store.execute("GET", f"{p.tag}:x") for p in on.store.keys.partitions]
        assert found == [b"x"] * 3
        assert len(before & await run_ids(on.store)) == 2


async def test_a_cluster_with_one_unsuitable_server_is_refused(world: Callable[..., Any]):
    async with world() as on:
        await check(on.store)
        bad = on.servers.primaries[2]
        await bad.execute("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
        with pytest.raises(ServerUnsuitable, match=rf":{bad.server.port}/0: .*allkeys-lru"):
            await check(on.store)


async def test_redirections_are_enough_for_who_may_not_ask_for_the_slots(world: Callable[..., Any]):
    async with world() as on:
        for node in on.servers.primaries:
            await node.execute(
                "ACL", "SETUSER", "app", "on", ">pass", "~*", "&*", "+@all", "-cluster"
            )
        url = on.servers.url.replace("redis://", "redis://app:pass@")
        store = Store(Link(Address(url)), Keys("sharded", 3), 5.0)
        for partition in store.keys.partitions:
            assert await store.execute("SET", f"{partition.tag}:x", "x") == b"OK"
        await store.close()


@pytest.mark.parametrize(
    ("command", "key"),
    [
        (("GET", "k"), "k"),
        (("XINFO", "CONSUMERS", "k", "group"), "k"),
        (("TIME",), ""),
        (("CONFIG", "GET", "x"), ""),
        (("BGREWRITEAOF",), ""),
    ],
)
def test_the_key_of_a_command_is_found(command: tuple[str, ...], key: str):
    assert key_of(command) == key


async def test_a_slot_is_the_one_that_servers_say(world: Callable[..., Any]):
    async with world() as on:
        node = on.servers.primaries[0]
        for key in ("123456789", "{123456789}:x", "x{}{123456789}", "{a}{b}", "x{a", "x}{a}", "é"):
            assert await node.execute("CLUSTER", "KEYSLOT", key) == slot_of(key), key
