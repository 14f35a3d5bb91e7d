"""A server that is away, busy or demoted: who waits for it, for how long, and who is told."""

from __future__ import annotations

import asyncio
import itertools
import time

import pytest

from resolute.errors import StoreUnavailable
from resolute.store import connection as module
from resolute.store.connection import ServerReply
from resolute.store.script import pack
from resolute.store.server import check
from resolute.store.store import Store
from resolute.store.sync import SyncReader
from resolute.testing.server import EmbeddedServer
from tests.support.links import alone, linked, read_group, saying, strange_server
from tests.support.proxy import Proxy

# A server that is away.


async def test_a_server_that_dies_in_a_call_is_unavailable_until_it_is_back(
    own_server: EmbeddedServer,
):
    async with linked(own_server.url) as link, linked(own_server.url) as other:
        waiting = [asyncio.create_task(link.execute("BLPOP", "the-list", 0)) for _ in range(3)]
        await other.execute("ECHO", "they are on their way")
        own_server.kill()
        for found in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(found, StoreUnavailable)
        with pytest.raises(StoreUnavailable, match="cannot reach"):
            await link.execute("ECHO", "x")
        own_server.start()
        assert await link.execute("ECHO", "x") == b"x"


async def test_a_call_outlasts_a_server_that_is_away_for_less_than_its_patience(
    own_server: EmbeddedServer,
):
    store = await Store.open(own_server.url, "patient", patience=30.0)
    own_server.kill()
    calls = [asyncio.create_task(store.execute("ECHO", n)) for n in range(3)]
    script = asyncio.create_task(
        store.call("ensure_group", [store.keys.partitions[0].inbox, "{patient}:s"], pack("g"))
    )
    await asyncio.wait(calls, timeout=0.1)
    own_server.start()
    assert await asyncio.gather(*calls) == [b"0", b"1", b"2"]
    assert await script == [b"OK"]
    await store.close()


async def test_a_call_without_patience_says_at_once_that_the_server_is_away(
    own_server: EmbeddedServer,
):
    store = await Store.open(own_server.url, "hasty", patience=0.0)
    own_server.kill()
    with pytest.raises(StoreUnavailable):
        await store.execute("ECHO", "x")
    await store.close()


async def test_after_a_dial_that_failed_the_next_one_waits(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "FIRST_BACKOFF", 0.05)
    async with linked("redis://127.0.0.1:1") as link:
        with pytest.raises(StoreUnavailable, match="cannot reach"):
            await link.connection()
        allowed = link._next_try
        with pytest.raises(StoreUnavailable, match="cannot reach"):
            await link.connection()
        assert time.monotonic() >= allowed


async def test_an_outage_is_said_once_and_so_is_its_end(
    own_server: EmbeddedServer, caplog: pytest.LogCaptureFixture
):
    async with linked(own_server.url) as link:
        await link.execute("ECHO", "x")
        for _ in range(2):
            caplog.clear()
            own_server.kill()
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    await link.execute("ECHO", "x")
            own_server.start()
            await link.execute("ECHO", "x")
            assert ["is back after" in record.message for record in caplog.records] == [False, True]


async def test_a_first_connection_that_fails_is_its_caller_s_to_say(
    caplog: pytest.LogCaptureFixture,
):
    async with linked("redis://127.0.0.1:1") as link:
        with pytest.raises(StoreUnavailable):
            await link.connection()
    assert caplog.records == []


# A server that refuses for the moment.


async def test_what_is_refused_for_the_moment_is_tried_again(own_server: EmbeddedServer):
    """READONLY: a primary that was made a replica, and is made a primary again."""
    store = await Store.open(own_server.url, "patient", patience=30.0)
    await store.execute("REPLICAOF", "127.0.0.1", own_server.port)
    writing = asyncio.create_task(store.execute("SET", "{patient}:key", "value"))
    done, _ = await asyncio.wait([writing], timeout=0.1)
    assert not done
    await store.execute("REPLICAOF", "NO", "ONE")
    assert await writing == b"OK"
    await store.close()


@pytest.mark.parametrize(
    "code",
    ["LOADING", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN", "BUSY", "READONLY", "MISCONF",
     "NOREPLICAS"],
)  # fmt: skip
async def test_what_is_refused_for_the_moment_is_asked_again_whatever_the_reason(code: str):
    once_refused = saying([f"-{code} not now\r\n".encode(), b"+OK\r\n"])
    async with strange_server(once_refused) as url, linked(url) as link:
        assert await alone(link, 30.0).execute("SET", "key", "value") == b"OK"
        # Another server may answer behind the same address.
        assert link.generation == (2 if code in ("READONLY", "MASTERDOWN") else 1)


async def test_commands_sent_together_are_all_asked_again_where_one_was_refused_for_the_moment():
    """A read of several runs while the server loads its file after a crash."""
    answers = iter([b"-LOADING not now\r\n+b\r\n", b"+a\r\n+b\r\n"])

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (await reader.read(1000)).count(b"GET") == 2:
            writer.write(next(answers))

    async with strange_server(talk) as url, linked(url) as link:
        store = alone(link, 30.0)
        assert await store.execute_all([("GET", "a"), ("GET", "b")]) == [b"a", b"b"]


async def test_without_patience_what_is_refused_for_the_moment_is_said_at_once():
    busy = saying(itertools.repeat(b"-BUSY not now\r\n"))
    async with strange_server(busy) as url, linked(url) as link, asyncio.timeout(5):
        with pytest.raises(ServerReply, match="BUSY"):
            await alone(link, 0.0).execute("SET", "key", "value")


async def test_a_server_that_loads_its_file_is_waited_for_at_the_first_connection():
    """A coordinator that is started while Redis comes back after a crash."""
    loading, loaded = b"-LOADING not now\r\n", b"$1\r\n3\r\n"
    no_cluster = b"-ERR no cluster\r\n"
    answers = saying([loading, no_cluster, loading, loaded])
    async with strange_server(answers) as url, asyncio.timeout(30):
        store = await Store.open(url, "n", name="", patience=30.0)
        assert store.keys.count == 3
        await store.close()


async def test_who_waits_for_a_server_does_not_wait_for_what_will_not_pass():
    forbidding = saying(itertools.repeat(b"-NOPERM no\r\n"))
    async with strange_server(forbidding) as url, asyncio.timeout(5):
        with pytest.raises(ServerReply, match="NOPERM"):
            await Store.open(url, "n", name="", wait=True)


# A server that was demoted.


async def test_a_read_of_entries_leaves_a_server_that_became_a_replica(own_server: EmbeddedServer):
    """It would be refused for ever: the connection stays open, and the primary is elsewhere."""
    async with linked(own_server.url) as link:
        connection = await link.connection()
        await link.execute("XGROUP", "CREATE", "stream", "group", "0", "MKSTREAM")
        await link.execute("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StoreUnavailable, match="not the primary"):
            await read_group(link, "group", "consumer", ["stream"], 1, None)
        assert connection.closed.done()


async def test_blocking_reads_follow_the_link_to_another_server(
    server: EmbeddedServer, own_server: EmbeddedServer
):
    """Else they would be answered by a replica, late, when the link has found the new primary."""
    with Proxy(own_server.port) as proxy:
        async with linked(proxy.url) as link, linked(server.url) as new:
            await link.execute("HSET", "a-hash", "field", "old")
            await new.execute("HSET", "a-hash", "field", "new")
            reader = SyncReader(alone(link, 5.0))
            assert await asyncio.to_thread(reader.hmget, "a-hash", ["field"]) == [b"old"]
            proxy.target = server.port
            (await link.connection()).close()
            assert await asyncio.to_thread(reader.hmget, "a-hash", ["field"]) == [b"old"]
            await link.connection()
            assert await asyncio.to_thread(reader.hmget, "a-hash", ["field"]) == [b"new"]
            reader.close()
            await new.execute("DEL", "a-hash")


async def test_a_server_that_goes_away_while_a_daemon_starts_is_waited_for(
    own_server: EmbeddedServer,
):
    """It was there, so the address is right; a daemon that ended would be one too few."""
    with Proxy(own_server.port) as proxy:
        proxy.lose_next(b"partitions")
        store = await Store.open(proxy.url, patience=float("inf"))
        proxy.lose_next(b"INFO")
        assert (await check(store)).role == "master"
        assert proxy.lost == 2
        await store.close()
