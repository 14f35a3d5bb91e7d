from __future__ import annotations

import pytest

from resolute.status import EventKind, NodeStatus, RunStatus
from resolute.store.registry import server_ms
from tests.support.flows import builder, chain, chain_of, fan, step, undoable
from tests.support.keyspace import snapshot
from tests.support.stage import NO_UNDO_INPUT, Stage


async def test_a_failed_attempt_waits_for_its_backoff_under_a_new_token(stage: Stage):
    await stage.begin_run(chain("a"))
    held = await stage.claim_one("worker")
    before = await server_ms(stage.store)
    assert await stage.fail("worker", held, 5_000, message="first") == "OK"
    after = await server_ms(stage.store)
    record = await stage.record(held)
    assert record is not None
    assert (record.status, record.attempt, record.crashes) == (NodeStatus.WAITING, 2, 0)
    assert (record.process, record.entry) == ("", "")
    assert record.token == held.entry.token.removesuffix(".0") + ".1"
    assert record.ended is not None
    assert before + 5_000 <= record.ended <= after + 5_000
    assert await timers(stage) == [(f"node|q|run|1|0|{record.token}", record.ended)]


async def timers(stage: Stage) -> list[tuple[str, float]]:
    found = await stage.store.execute("ZRANGE", stage.of("run").timers, 0, -1, "WITHSCORES")
    return [(str(m, "utf-8"), float(s)) for m, s in zip(found[::2], found[1::2], strict=True)]


async def test_a_failed_attempt_neither_counts_down_nor_fails_the_run(stage: Stage):
    await stage.begin_run(chain("a"))
    held = await stage.claim_one("worker")
    rev = (await stage.header()).rev
    await stage.fail("worker", held, 5_000)
    header = await stage.header()
    assert (header.status, header.pending, header.rev) == (RunStatus.RUNNING, 1, rev)
    assert header.error is None
    assert await stage.entries() == []
    assert (await stage.stats())["retries"] == 1
    assert "x:a" in await stage.hash()


async def test_only_a_timer_before_the_earliest_wakes_a_coordinator(stage: Stage):
    await stage.begin_run(fan(3))
    one, two, three = await stage.claim("worker")
    for held, delay, wakes in ((one, 50_000, 1), (two, 60_000, 1), (three, 40_000, 2)):
        await stage.fail("worker", held, delay)
        await stage.coordinate()
        assert stage.wakes - 1 * len(stage.store.keys.partitions) == wakes


async def test_the_last_attempt_fails_the_node_and_the_run_with_its_error(stage: Stage):
    await stage.begin_run(fan(2))
    one, _ = await stage.claim("worker")
    rev = (await stage.header()).rev
    assert await stage.fail("worker", one, message="too bad") == "OK"
    header = await stage.header()
    record = await stage.record(one)
    assert record is not None
    assert (record.status, record.process) == (NodeStatus.FAILED, "worker")
    assert (header.status, header.pending) == (RunStatus.FAILING, 1)
    assert header.rev != rev
    assert header.error is not None
    assert header.error.message == "too bad"
    (event,) = await stage.events()
    assert (event.kind, event.rev) == (EventKind.LOOK, header.rev)
    assert (await stage.stats())["nodes_failed"] == 1


async def test_the_run_has_the_error_that_happened_first(stage: Stage):
    await stage.begin_run(fan(2))
    one, two = await stage.claim("worker")
    await stage.fail("worker", two, message="first")
    rev = (await stage.header()).rev
    await stage.fail("worker", one, message="second")
    header = await stage.header()
    assert header.error is not None
    assert header.error.message == "first"
    assert header.rev == rev


async def test_in_a_failing_run_there_is_no_other_attempt(stage: Stage):
    await stage.begin_run(fan(2))
    one, two = await stage.claim("worker")
    await stage.fail("worker", one)
    assert await stage.fail("worker", two, 5_000) == "OK"
    record = await stage.record(two)
    assert record is not None
    assert record.status is NodeStatus.FAILED
    assert await timers(stage) == []
    assert (await stage.header()).pending == 0


async def test_a_best_effort_node_fails_alone(stage: Stage):
    flow = builder("f").then_parallel("both", step("a").best_effort(), step("b")).build()
    await stage.begin_run(flow)
    one, two = await stage.claim("worker")
    rev = (await stage.header()).rev
    await stage.fail("worker", one, best_effort=True)
    header = await stage.header()
    assert (header.status, header.rev, header.error) == (RunStatus.RUNNING, rev, None)
    assert "x:a" in await stage.hash()
    await stage.complete("worker", two)
    assert [event.kind for event in await stage.events()] == [EventKind.SETTLED]
    await stage.coordinate()
    assert await stage.status() == "completed"


async def test_a_failed_best_effort_node_that_comes_last_settles_the_step(stage: Stage):
    await stage.begin_run(chain_of(step("a").best_effort(), step("b")))
    await stage.fail("worker", await stage.claim_one("worker"), best_effort=True)
    (event,) = await stage.events()
    assert event.kind is EventKind.SETTLED
    await stage.coordinate()
    assert (await stage.header()).pc == 1


@pytest.mark.parametrize("delay", [None, 0])
async def test_a_failing_compensation_is_recorded_and_retried_and_stops_nothing(
    stage: Stage, delay: int | None
):
    await stage.begin_run(chain_of(undoable("a"), undoable("b"), step("c")))
    for _ in range(2):
        await stage.complete("worker", await stage.claim_one("worker"), undo=NO_UNDO_INPUT)
        await stage.coordinate()
    await stage.fail("worker", await stage.claim_one("worker"), message="why")
    await stage.coordinate()
    undo = await stage.claim_one("worker")
    assert undo.entry.undo == 2
    await stage.fail("worker", undo, delay, message="cannot undo")
    if delay is not None:
        assert await stage.release(undo.partition) == ["OK"]
        undo = await stage.claim_one("worker")
        assert (undo.entry.undo, undo.entry.attempt) == (2, 2)
        await stage.fail("worker", undo, message="cannot undo")
    assert "ux:2" in await stage.hash()
    assert await stage.work() == 1
    header = await stage.header()
    assert header.status is RunStatus.FAILED
    assert header.error is not None
    assert header.error.message == "why"


@pytest.mark.parametrize("delay", [None, 5_000])
async def test_failing_twice_is_failing_once(stage: Stage, delay: int | None):
    await stage.begin_run(fan(2))
    held, _ = await stage.claim("worker")
    await stage.fail("worker", held, delay)
    before = await snapshot(stage.store)
    assert await stage.fail("worker", held, delay) == "OK"
    assert await snapshot(stage.store) == before


async def test_after_its_timer_the_node_comes_as_the_next_attempt_and_can_complete(stage: Stage):
    await stage.begin_run(chain("a"))
    await stage.fail("worker", await stage.claim_one("worker"), 0)
    await stage.release(stage.of("run"))
    again = await stage.claim_one("other")
    assert again.entry.attempt == 2
    await stage.complete("other", again)
    await stage.coordinate()
    assert await stage.status() == "completed"


@pytest.mark.parametrize("delay", [None, 60_000])
async def test_a_failure_sent_again_after_the_next_attempt_failed_is_stale(
    stage: Stage, delay: int | None
):
    await stage.begin_run(fan(2))
    held, _ = await stage.claim("worker")
    await stage.fail("worker", held, 0)
    await stage.release(held.partition)
    await stage.fail("worker", await stage.claim_one("worker"), delay)
    before = await stage.hash()
    assert await stage.fail("worker", held, 0) == "STALE"
    assert await stage.hash() == before


async def test_a_damaged_counter_is_not_made_worse_by_a_failure(stage: Stage):
    await stage.begin_run(fan(2))
    one, _ = await stage.claim("worker")
    await stage.store.execute("HSET", one.partition.flow("run"), "pending", 0)
    before = await stage.hash()
    assert await stage.fail("worker", one, best_effort=True) == "ERROR"
    assert await stage.hash() == before
    await stage.store.execute("HSET", one.partition.flow("run"), "pending", 2)
