from __future__ import annotations

import pytest

from resolute.store import streams
from resolute.store.connection import ServerReply
from resolute.store.script import GROUP_COORDINATORS, GROUP_WORKERS
from tests.support.flows import chain
from tests.support.keyspace import snapshot
from tests.support.stage import Stage


async def test_a_new_group_reads_from_the_beginning_and_asks_for_a_sweep(stage: Stage):
    """What is there already was written before; what is missing may have been lost with it."""
    await stage.offer(chain("a"))
    await stage.start("chain")
    partition = stage.of("run")
    await streams.ensure_group(stage.store, partition, partition.inbox, GROUP_COORDINATORS)
    await stage.coordinate()
    assert len(await stage.entries()) == 1
    assert stage.sweeps >= 1


async def test_a_group_that_is_there_is_left_alone(stage: Stage):
    partition = stage.of("run")
    stream = partition.queue("q")
    await streams.ensure_group(stage.store, partition, stream, GROUP_WORKERS)
    before = await snapshot(stage.store)
    await streams.ensure_group(stage.store, partition, stream, GROUP_WORKERS)
    assert await snapshot(stage.store) == before


async def test_a_stream_that_was_deleted_is_made_again_and_swept_for(stage: Stage):
    partition = stage.of("run")
    stream = partition.queue("q")
    for times in (1, 2):
        await streams.ensure_group(stage.store, partition, stream, GROUP_WORKERS)
        await stage.store.execute("DEL", stream)
        assert await stage.store.execute("XLEN", partition.inbox) == times
    await stage.coordinate()
    assert stage.sweeps >= 2


async def test_what_is_no_stream_is_an_error_and_not_taken_for_a_group(stage: Stage):
    partition = stage.of("run")
    stream = partition.queue("q")
    await stage.store.execute("SET", stream, "a text")
    with pytest.raises(ServerReply, match="WRONGTYPE"):
        await streams.ensure_group(stage.store, partition, stream, GROUP_WORKERS)
    await stage.store.execute("DEL", stream)
