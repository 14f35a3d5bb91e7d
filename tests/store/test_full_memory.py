"""At maxmemory new runs are refused; whatever serves the runs that there are still works."""

from __future__ import annotations

import pytest

from resolute.client import Client
from resolute.coordinator.reconciler import Reconciler
from resolute.store import dead, limits, registry, streams
from resolute.store.connection import ServerReply
from resolute.store.limits import Ask
from resolute.store.script import GROUP_WORKERS
from tests.support.flows import chain, chain_of, fan, step, undoable
from tests.support.letters import bury
from tests.support.memory_limit import full_memory
from tests.support.stage import NO_UNDO_INPUT, Stage, forget
from tests.support.tour import LIMIT

FLOW = chain("a", "b")


async def test_a_start_is_refused(stage: Stage):
    await stage.offer(FLOW)
    async with full_memory(stage.store):
        with pytest.raises(ServerReply, match="OOM"):
            await stage.start(FLOW)


async def test_a_worker_and_its_flows_can_register(stage: Stage):
    """A rolling restart must not wait for memory: its workers are what frees it."""
    await stage.offer(FLOW)
    await stage.start(FLOW)
    async with full_memory(stage.store):
        await stage.offer(FLOW, process="another")
        assert await stage.work() == 2
    assert set(await registry.processes(stage.store)) == {"stage:0:offers", "another"}


async def test_a_group_can_be_made(stage: Stage):
    partition = stage.of("run")
    async with full_memory(stage.store):
        await streams.ensure_group(stage.store, partition, partition.queue("new"), GROUP_WORKERS)


async def test_beats_are_raised_and_leases_end(stage: Stage):
    await stage.offer(FLOW, process="worker")
    async with full_memory(stage.store):
        assert await registry.beat(stage.store, ["worker"]) == [[]]
        await registry.end_lease(stage.store, "worker")
    assert await registry.beats(stage.store) == {"worker": -1}


async def test_a_process_that_left_is_forgotten(stage: Stage):
    await stage.offer(FLOW, process="worker")
    async with full_memory(stage.store):
        await forget(stage.store, "worker")
    assert await registry.processes(stage.store) == {}


async def test_what_nobody_can_use_is_buried(stage: Stage):
    partition = stage.of("run")
    stream = partition.queue("q")
    entry = str(await stage.store.execute("XADD", stream, "*", "e", b"raw"), "ascii")
    async with full_memory(stage.store):
        await dead.bury_entries(stage.store, partition, "q", [(entry, "why")])
    assert await stage.store.execute("XLEN", partition.dead) == 1


async def test_a_dead_letter_can_be_retried_and_dropped(stage: Stage):
    partition = stage.of("run")
    one, two = [await bury(stage.store, partition, "q", b"raw") for _ in range(2)]
    async with full_memory(stage.store):
        assert list(await Client(stage.store).retry_dead_letters(one)) == [one]
        assert list(await Client(stage.store).drop_dead_letters(two)) == [two]
    await stage.store.execute("DEL", partition.queue("q"))


async def test_a_run_with_running_nodes_can_be_cancelled_and_compensated(stage: Stage):
    await stage.begin_run(chain_of(undoable("a"), step("b")))
    await stage.complete("worker", await stage.claim_one("worker"), undo=NO_UNDO_INPUT)
    await stage.coordinate()
    held = await stage.claim_one("worker")
    async with full_memory(stage.store):
        assert await stage.stop("run") == "OK"
        await stage.coordinate()
        await stage.complete("worker", held)
        assert await stage.work() == 1
    assert await stage.status() == "cancelled"


async def test_what_a_dead_process_had_is_taken_back(stage: Stage):
    await stage.begin_run(FLOW)
    held = await stage.claim_one("dead")
    async with full_memory(stage.store):
        assert await stage.reclaim(held, "dead") == "OK"
        assert await stage.work() == 2


async def test_what_was_lost_is_repaired(stage: Stage):
    await stage.begin_run(FLOW)
    await stage.complete("worker", await stage.claim_one("worker"))
    await stage.store.execute("DEL", stage.of("run").inbox)
    reconciler = Reconciler(stage.store, stage.catalog, 0.0, bool)
    async with full_memory(stage.store):
        assert await reconciler.run_once() == 1
        assert await stage.work() == 1
    assert await stage.status() == "completed"


async def test_a_bucket_gives_its_tokens(stage: Stage):
    async with full_memory(stage.store):
        (grant,) = await limits.take(stage.store, LIMIT, "", [(Ask.NEW, 0, 0)])
        await limits.push_back(stage.store, LIMIT, "", 1.0)
    assert grant.granted


async def test_a_wide_failing_run_is_brought_to_its_end(stage: Stage):
    await stage.begin_run(fan(3))
    one, two, _ = await stage.claim("worker")
    async with full_memory(stage.store):
        await stage.fail("worker", one)
        await stage.give_back("worker", two)
        await stage.coordinate()
        await stage.stop("run", terminate=True)
        await stage.coordinate()
    assert await stage.status() == "terminated"
