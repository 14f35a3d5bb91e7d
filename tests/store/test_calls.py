"""Calls to a server that answers: scripts go by their hash, and errors are raised."""

from __future__ import annotations

import asyncio

import pytest

from resolute.store import streams
from resolute.store.connection import ServerReply
from resolute.store.script import GROUP_WORKERS, load_script, pack
from resolute.store.store import Store
from tests.support.flows import chain
from tests.support.links import alone, linked, saying, strange_server
from tests.support.stage import Stage

one_partition = pytest.mark.parametrize("partitions", [1], indirect=True)


# Scripts.


@one_partition
async def test_scripts_that_the_server_forgot_are_loaded_again(stage: Stage):
    await stage.begin_run(chain("a", "b"))
    await stage.store.execute("SCRIPT", "FLUSH")
    assert await stage.work() == 2
    assert await stage.status() == "completed"


@one_partition
async def test_calls_in_flight_while_the_server_forgets_its_scripts_all_succeed(stage: Stage):
    await stage.offer(chain("a"))
    calls = [stage.start("chain", run_id) for run_id in stage.ids(50)]
    flush = stage.store.execute("SCRIPT", "FLUSH")
    codes = await asyncio.gather(*calls[:25], flush, *calls[25:])
    assert codes.count("OK") == 50


async def test_a_script_that_is_flushed_while_it_is_loaded_is_loaded_again():
    unknown, loaded = b"-NOSCRIPT No matching script.\r\n", b"+loaded\r\n"
    flushed = saying([unknown, loaded, unknown, loaded, b"+OK\r\n"])
    async with strange_server(flushed) as url, linked(url) as link:
        store = alone(link, 30.0)
        assert await store.call("due_timers", ["timers"], pack(1)) == b"OK"


@one_partition
async def test_a_script_that_is_loaded_is_sent_by_its_hash_alone(stage: Stage):
    await stage.start("a")
    before = await stage.store.execute("INFO", "commandstats")
    await stage.start("a", "other")
    after = await stage.store.execute("INFO", "commandstats")
    assert (await stage.store.execute("SCRIPT", "EXISTS", load_script("start_flow").sha)) == [1]
    for line in (b"cmdstat_script|load:calls=", b"cmdstat_eval:calls="):
        assert count(before, line) == count(after, line)


@one_partition
async def test_a_script_that_fails_is_not_sent_again(store: Store):
    partition = store.keys.partitions[0]
    stream = partition.queue("q")
    await store.execute("SET", stream, "a text")
    load = ("SCRIPT", "LOAD", load_script("ensure_group").source)
    await store.execute(*load)
    before = await store.execute("INFO", "commandstats")
    with pytest.raises(ServerReply, match="WRONGTYPE"):
        await store.call("ensure_group", [partition.inbox, stream], pack(GROUP_WORKERS))
    after = await store.execute("INFO", "commandstats")
    line = b"cmdstat_evalsha:calls="
    assert int(count(after, line)) == int(count(before, line) or 0) + 1
    await store.execute("DEL", stream)


def count(stats: bytes, line: bytes) -> bytes:
    return stats.partition(line)[2].partition(b",")[0]


# Commands.


@one_partition
async def test_of_commands_sent_together_the_first_error_is_raised(store: Store):
    with pytest.raises(ServerReply, match="NOSUCH"):
        await store.execute_all([("ECHO", "a"), ("NOSUCH",), ("GET",)])


@one_partition
async def test_what_is_no_stream_has_nothing_pending_only_by_mistake(store: Store):
    stream = store.keys.partitions[0].queue("q")
    assert await streams.pending_of(store, stream, GROUP_WORKERS, "worker") == []
    await store.execute("SET", stream, "a text")
    with pytest.raises(ServerReply, match="WRONGTYPE"):
        await streams.pending_of(store, stream, GROUP_WORKERS, "worker")
    await store.execute("DEL", stream)
