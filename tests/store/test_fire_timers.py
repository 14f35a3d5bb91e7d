"""Timers of runs: sleeps, gates that time out, deadlines, runs that begin later."""

from __future__ import annotations

import pytest

from resolute.coordinator.reconciler import Reconciler
from resolute.status import NodeStatus, RunStatus
from resolute.store import registry
from tests.support.flows import builder, step, undoable
from tests.support.keyspace import snapshot
from tests.support.stage import NO_UNDO_INPUT, Stage

SLEEPER = builder("sleeper").then(step("a")).then_sleep("1h").then(step("b")).build()
GATE = builder("gate").then(undoable("a")).then_gate("g", timeout="1h").then(step("b")).build()
LIMITED = builder("limited").then(step("a")).with_deadline("1h").build()


async def due_ms(stage: Stage) -> list[tuple[str, float]]:
    """The timers, each with the ms from now until it is due."""
    now = await registry.server_ms(stage.store)
    rows = await stage.store.execute("ZRANGE", stage.of("run").timers, 0, -1, "WITHSCORES")
    return [(str(m, "utf-8"), float(s) - now) for m, s in zip(rows[::2], rows[1::2], strict=True)]


async def fire(stage: Stage) -> list[str]:
    """Let every timer be due, fire them, and coordinate."""
    await stage.make_due(stage.of("run"))
    codes = await stage.release(stage.of("run"))
    await stage.coordinate()
    return codes


async def complete_one(stage: Stage, *, undo: bytes | None = None) -> None:
    held = await stage.claim_one("worker")
    assert await stage.complete("worker", held, b"\x07", undo=undo) == "OK"
    await stage.coordinate()


async def test_a_sleep_lasts_as_long_as_it_says_by_the_clock_of_redis(stage: Stage):
    await stage.begin_run(SLEEPER)
    await complete_one(stage)
    ((member, left),) = await due_ms(stage)
    assert member.startswith("sleep|sleep.1|run|2|0|")
    assert 3_590_000 < left <= 3_600_000
    assert await stage.release(stage.of("run")) == []
    assert await stage.entries() == []


async def test_after_a_sleep_the_next_step_has_the_output_of_the_one_before(stage: Stage):
    await stage.begin_run(SLEEPER)
    await complete_one(stage)
    assert await fire(stage) == ["OK"]
    assert [entry.pc for _, entry in await stage.entries()] == [2]
    assert (await stage.header()).previous == 0


async def test_a_gate_that_timed_out_fails_the_run_and_what_completed_is_undone(stage: Stage):
    await stage.begin_run(GATE)
    await complete_one(stage, undo=NO_UNDO_INPUT)
    assert await fire(stage) == ["OK"]
    header = await stage.header()
    assert header.status is RunStatus.COMPENSATING
    assert header.error is not None
    assert (header.error.type, header.error.node) == ("GateTimeout", "g")
    held = await stage.claim_one("worker")
    assert held.entry.undo == 1
    await stage.complete("worker", held)
    await stage.coordinate()
    assert await stage.status() is RunStatus.FAILED


async def test_a_run_past_its_deadline_fails_and_its_nodes_are_cancelled(stage: Stage):
    await stage.begin_run(LIMITED)
    held = await stage.claim_one("worker")
    assert await fire(stage) == ["OK"]
    header = await stage.header()
    assert (header.status, header.overran) == (RunStatus.FAILING, True)
    told = await stage.store.execute("SMEMBERS", stage.store.keys.meta.cancels("worker"))
    assert told == [f"run|1.0|{held.entry.token}".encode()]
    await stage.fail("worker", held, message="cancelled")
    await stage.coordinate()
    header = await stage.header()
    assert header.status is RunStatus.FAILED
    assert header.error is not None
    assert header.error.type == "DeadlineExceeded"


async def test_a_run_that_ends_takes_its_timers_with_it(stage: Stage):
    await stage.begin_run(LIMITED)
    assert len(await due_ms(stage)) == 1
    await complete_one(stage)
    assert await stage.status() is RunStatus.COMPLETED
    assert await due_ms(stage) == []


@pytest.mark.parametrize("terminate", [True, False])
@pytest.mark.parametrize("begun", [True, False])
async def test_a_run_that_is_stopped_at_a_gate_or_before_it_begins_leaves_no_timer(
    stage: Stage, terminate: bool, begun: bool
):
    flow = builder("g").then_gate("g", timeout="1h").build()
    await stage.offer(flow)
    await stage.start(flow, delay=0 if begun else 60_000)
    await stage.coordinate()
    assert len(await due_ms(stage)) == 1
    await stage.stop("run", terminate=terminate)
    await stage.coordinate()
    assert (await stage.status()).is_terminal
    assert await due_ms(stage) == []


async def test_a_run_with_a_delay_is_there_at_once_and_begins_then(stage: Stage):
    await stage.offer(LIMITED)
    assert await stage.start(LIMITED, delay=60_000) == "OK"
    assert await stage.start(LIMITED, delay=60_000) == "EXISTS"
    await stage.coordinate()
    assert await stage.entries() == []
    ((member, left),) = await due_ms(stage)
    assert (member, 50_000 < left <= 60_000) == ("start||run|0|0|", True)
    assert await fire(stage) == ["OK"]
    assert len(await stage.entries()) == 1
    assert (await stage.header()).due is None


async def test_a_moment_that_has_passed_is_now(stage: Stage):
    await stage.offer(LIMITED)
    await stage.start(LIMITED, at=1)
    await stage.coordinate()
    assert len(await stage.entries()) == 1


async def test_a_timer_whose_run_has_gone_on_is_dropped_and_changes_nothing(stage: Stage):
    await stage.begin_run(GATE)
    await complete_one(stage, undo=NO_UNDO_INPUT)
    partition = stage.of("run")
    ((member, _),) = await due_ms(stage)
    await stage.signal("g")
    await stage.coordinate()
    for timer in (member, "deadline||nobody|0|0|", "start||run|0|0|"):
        await stage.store.execute("ZADD", partition.timers, 1, timer)
    before = await stage.hash()
    assert sorted(await stage.release(partition)) == ["GONE", "STALE", "STALE"]
    assert await stage.hash() == before
    assert await due_ms(stage) == []


@pytest.mark.parametrize("flow", [SLEEPER, GATE, LIMITED], ids=lambda flow: flow.name)
async def test_a_lost_timer_is_put_back_with_its_time(stage: Stage, flow: object):
    assert flow in (SLEEPER, GATE, LIMITED)
    chosen = SLEEPER if flow is SLEEPER else GATE if flow is GATE else LIMITED
    await stage.begin_run(chosen)
    if chosen is not LIMITED:
        await complete_one(stage, undo=NO_UNDO_INPUT if chosen is GATE else None)
    rows = await stage.store.execute("ZRANGE", stage.of("run").timers, 0, -1, "WITHSCORES")
    await stage.store.execute("DEL", stage.of("run").timers)
    assert await Reconciler(stage.store, stage.catalog, 0.0, lambda _: False).run_once() == 1
    again = await stage.store.execute("ZRANGE", stage.of("run").timers, 0, -1, "WITHSCORES")
    assert (len(rows), again) == (2, rows)


async def test_a_lost_timer_of_a_run_that_begins_later_is_put_back(stage: Stage):
    await stage.offer(LIMITED)
    await stage.start(LIMITED, delay=60_000)
    rows = await stage.store.execute("ZRANGE", stage.of("run").timers, 0, -1, "WITHSCORES")
    await stage.store.execute("DEL", stage.of("run").timers)
    reconciler = Reconciler(stage.store, stage.catalog, 0.0, lambda _: False)
    assert await reconciler.run_once() == 1
    assert await reconciler.run_once() == 0
    again = await stage.store.execute("ZRANGE", stage.of("run").timers, 0, -1, "WITHSCORES")
    assert again == rows


async def test_a_gate_without_a_timeout_waits_and_nobody_repairs_it(stage: Stage):
    flow = builder("g").then_gate("g").build()
    await stage.begin_run(flow)
    before = await snapshot(stage.store)
    assert await Reconciler(stage.store, stage.catalog, 0.0, lambda _: False).run_once() == 0
    assert await snapshot(stage.store) == before
    record = await stage.record_of("run", 1, 0)
    assert record is not None
    assert (record.status, record.ended) == (NodeStatus.WAITING, None)
