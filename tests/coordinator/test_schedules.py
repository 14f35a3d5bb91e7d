"""Every tick starts one run, however many coordinators look and whatever they missed."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from resolute.coordinator.catalog import Catalog
from resolute.coordinator.schedules import MAX_WAIT, STALE_WAIT, Schedules
from resolute.model.builder import FlowBuilder
from resolute.model.claims import Overlap
from resolute.model.flow import Flow
from resolute.model.triggers import schedule, tick_id, tick_of
from resolute.status import Code
from resolute.store import registry, runs
from resolute.store.keys import Partition
from resolute.store.runs import FRESH_LOOK_MS
from resolute.store.store import Store
from tests.support.clocks import FakeClock
from tests.support.flows import step
from tests.support.stage import Stage, forget

HOUR_MS = 3_600_000
RETENTION_MS = 24 * HOUR_MS


def schedules(store: Store, retention_ms: int = RETENTION_MS) -> Schedules:
    """The schedules of one more coordinator."""
    return Schedules(store, Catalog(store, FakeClock(tick=1.0)), retention_ms)


async def now(store: Store) -> datetime:
    """The time of Redis."""
    return datetime.fromtimestamp(await registry.server_ms(store) / 1000, UTC)


def every_day_at(moment: datetime) -> str:
    return f"{moment.minute} {moment.hour} * * *"


def flow_of(cron: str, *more: str, name: str = "nightly", **options: Any) -> Flow[Any, Any]:
    """A flow that is started at a cron expression, or several."""
    made = FlowBuilder(name).on_queue("q")
    for one in (cron, *more):
        made = made.triggered_by(schedule(one, **options))
    return made.then(step("a")).build()


async def offered_long_ago(stage: Stage, flow: Flow[Any, Any], hours: int = 240) -> None:
    """Offer a flow, and let its schedules have been looked at last so many hours ago."""
    await stage.offer(flow)
    then = await registry.server_ms(stage.store) - hours * HOUR_MS
    for index in range(len(flow.plan.schedules)):
        field = registry.tick_field(flow.name, index, flow.plan)
        await stage.put_cursor(field, then)


async def open_runs(stage: Stage) -> list[str]:
    found: list[str] = []
    for partition in stage.store.keys.partitions:
        found += [
            str(name, "utf-8")
            for name in await stage.store.execute("ZRANGE", partition.open, 0, -1)
        ]
    return sorted(found)


async def test_ticks_that_were_missed_are_caught_up_by_one_run(stage: Stage):
    due = await now(stage.store) - timedelta(hours=2)
    await offered_long_ago(stage, flow_of(every_day_at(due)))
    started, _ = await schedules(stage.store).run_once()
    assert started == 1
    assert await open_runs(stage) == [f"nightly:cron0:{due:%Y%m%dT%H%M}00Z"]


async def test_a_tick_is_started_once_however_often_it_is_looked_at(stage: Stage):
    due = await now(stage.store) - timedelta(hours=2)
    await offered_long_ago(stage, flow_of(every_day_at(due)))
    one = schedules(stage.store)
    assert [(await one.run_once())[0] for _ in range(4)] == [1, 0, 0, 0]


async def test_a_tick_is_started_once_by_many_coordinators(stage: Stage):
    due = await now(stage.store) - timedelta(hours=2)
    await offered_long_ago(stage, flow_of(every_day_at(due), "0 0 1 1 *"))
    coordinators = [schedules(stage.store) for _ in range(5)]
    counts = await asyncio.gather(*(one.run_once() for one in coordinators))
    assert sum(started for started, _ in counts) == 1
    assert len(await open_runs(stage)) == 1


async def test_a_tick_whose_cursor_was_lost_is_still_the_same_run(stage: Stage):
    """Redis lost its last second after the run was started, or the cursor was written late."""
    due = await now(stage.store) - timedelta(hours=2)
    flow = flow_of(every_day_at(due))
    await offered_long_ago(stage, flow)
    await schedules(stage.store).run_once()
    await offered_long_ago(stage, flow)
    assert (await schedules(stage.store).run_once())[0] == 0
    await stage.work()
    await offered_long_ago(stage, flow)
    assert (await schedules(stage.store).run_once())[0] == 0
    (run_id,) = {tick_id("nightly", 0, due.replace(second=0, microsecond=0).timestamp())}
    assert await stage.status(run_id) == "completed"


async def test_a_flow_offered_for_the_first_time_starts_with_its_next_tick(stage: Stage):
    due = await now(stage.store) - timedelta(hours=2)
    await stage.offer(flow_of(every_day_at(due)))
    assert (await schedules(stage.store).run_once())[0] == 0
    assert await open_runs(stage) == []


async def test_a_flow_that_is_offered_again_keeps_its_place(stage: Stage):
    due = await now(stage.store) - timedelta(hours=2)
    flow = flow_of(every_day_at(due))
    await offered_long_ago(stage, flow)
    await stage.offer(flow, process="another")
    assert (await schedules(stage.store).run_once())[0] == 1


async def test_a_tick_older_than_the_retention_is_not_started(stage: Stage):
    """Its run may have been, and be deleted already."""
    due = await now(stage.store) - timedelta(hours=2)
    await offered_long_ago(stage, flow_of(every_day_at(due)))
    one = schedules(stage.store, retention_ms=HOUR_MS)
    assert (await one.run_once())[0] == 0
    assert await open_runs(stage) == []
    assert (await schedules(stage.store).run_once())[0] == 0


async def test_each_schedule_of_a_flow_has_runs_of_its_own(stage: Stage):
    moment = await now(stage.store)
    first, second = moment - timedelta(hours=2), moment - timedelta(hours=3)
    await offered_long_ago(stage, flow_of(every_day_at(first), every_day_at(second)))
    assert (await schedules(stage.store).run_once())[0] == 2
    assert [run_id.split(":")[1] for run_id in await open_runs(stage)] == ["cron0", "cron1"]


async def test_a_changed_expression_is_a_new_schedule(stage: Stage):
    moment = await now(stage.store)
    await offered_long_ago(stage, flow_of(every_day_at(moment - timedelta(hours=2))))
    await stage.offer(flow_of(every_day_at(moment - timedelta(hours=3))), process="the-newer")
    assert (await schedules(stage.store).run_once())[0] == 0


async def test_a_tick_is_a_moment_in_its_own_time_zone(stage: Stage):
    due = await now(stage.store) - timedelta(hours=2)
    local = due + timedelta(hours=5, minutes=30)
    await offered_long_ago(stage, flow_of(every_day_at(local), timezone="Asia/Kolkata"))
    assert (await schedules(stage.store).run_once())[0] == 1
    assert await open_runs(stage) == [f"nightly:cron0:{due:%Y%m%dT%H%M}00Z"]


async def test_a_scheduled_run_has_the_input_and_the_queue_of_its_flow(stage: Stage):
    due = await now(stage.store) - timedelta(hours=2)
    made = FlowBuilder("nightly").on_queue("reports").then(step("a"))
    made = made.triggered_by(schedule(every_day_at(due), input={"day": "today"}))
    await offered_long_ago(stage, made.build())
    await schedules(stage.store).run_once()
    (run_id,) = await open_runs(stage)
    assert msgspec.msgpack.decode((await stage.hash(run_id))["input"]) == {"day": "today"}
    assert (await stage.header(run_id)).queue == "reports"


async def test_a_flow_whose_workers_are_gone_is_started_all_the_same(stage: Stage):
    """It waits, visibly, for somebody who offers it."""
    due = await now(stage.store) - timedelta(hours=2)
    await offered_long_ago(stage, flow_of(every_day_at(due)))
    await forget(stage.store, "stage:0:offers")
    assert (await schedules(stage.store).run_once())[0] == 1


async def test_a_schedule_that_cannot_be_computed_does_not_hold_up_the_others(stage: Stage):
    """Stored by another version, which did not see that its date never comes."""
    due = await now(stage.store) - timedelta(hours=2)
    broken = flow_of("0 0 1 1 *", name="a-broken")
    plan = msgspec.structs.replace(
        broken.plan,
        schedules=(msgspec.structs.replace(broken.plan.schedules[0], cron="0 0 31 2 *"),),
    )
    await stage.offer(dataclasses.replace(broken, plan=plan, plan_hash=plan.hash))
    await offered_long_ago(stage, flow_of(every_day_at(due)))
    assert (await schedules(stage.store).run_once())[0] == 1


@pytest.mark.parametrize("hours", [0.0005, 1, 30])
async def test_the_wait_is_until_the_next_tick_but_never_long(stage: Stage, hours: float):
    moment = await now(stage.store)
    await stage.offer(flow_of(every_day_at(moment + timedelta(hours=hours))))
    _, wait = await schedules(stage.store).run_once()
    assert 0 < wait <= MAX_WAIT


async def test_without_schedules_there_is_nothing_to_do(store: Store):
    assert await schedules(store).run_once() == (0, MAX_WAIT)


async def test_the_wait_is_until_the_next_tick(stage: Stage):
    await stage.offer(flow_of("* * * * * *"))
    _, wait = await schedules(stage.store).run_once()
    assert 0 < wait <= 1


async def test_a_scheduled_run_of_a_flow_without_a_queue_has_that_of_its_worker(stage: Stage):
    due = await now(stage.store) - timedelta(hours=2)
    made = FlowBuilder("nightly").triggered_by(schedule(every_day_at(due))).then(step("a")).build()
    await offered_long_ago(stage, made)
    await stage.offer(made, queue="reports")
    await schedules(stage.store).run_once()
    (run_id,) = await open_runs(stage)
    assert (await stage.header(run_id)).queue == "reports"


# Runs that are deleted early.


async def test_a_tick_older_than_its_flow_s_own_retention_is_not_started(stage: Stage):
    due = await now(stage.store) - timedelta(hours=2)
    made = FlowBuilder("nightly").on_queue("q").triggered_by(schedule(every_day_at(due)))
    await offered_long_ago(stage, made.then(step("a")).with_retention("1h").build())
    assert (await schedules(stage.store).run_once())[0] == 0
    assert await open_runs(stage) == []


async def test_a_longer_retention_of_its_flow_does_not_let_an_older_tick_start(stage: Stage):
    due = await now(stage.store) - timedelta(hours=2)
    made = FlowBuilder("nightly").on_queue("q").triggered_by(schedule(every_day_at(due)))
    await offered_long_ago(stage, made.then(step("a")).with_retention("7d").build())
    assert (await schedules(stage.store, retention_ms=HOUR_MS).run_once())[0] == 0


async def test_who_looked_at_the_cursors_too_long_ago_looks_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    """A coordinator stalls between its look and its start; the tick's run is over and deleted."""
    due = await now(stage.store) - timedelta(hours=2)
    flow = flow_of(every_day_at(due))
    await offered_long_ago(stage, flow)
    stalled = schedules(stage.store)
    look = registry.server_ms

    async def long_ago(store: Store) -> int:
        return await look(store) - FRESH_LOOK_MS - 1

    with monkeypatch.context() as patch:
        patch.setattr(registry, "server_ms", long_ago)
        assert await stalled.run_once() == (0, STALE_WAIT)
    assert await open_runs(stage) == []
    assert (await stalled.run_once())[0] == 1  # the cursor was not moved meanwhile


async def test_a_tick_that_another_look_must_start_does_not_hold_up_the_others(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    """The clock of the node where it would be is of another time."""
    due = await now(stage.store) - timedelta(hours=2)
    for name in ("a", "b", "c"):
        await offered_long_ago(stage, flow_of(every_day_at(due), name=name))
    start = runs.start

    async def of_another_time(
        store: Store, partition: Partition, starts: Sequence[runs.Start], retention_ms: int
    ) -> list[str]:
        if starts[0].flow == "a":
            return [Code.STALE]
        return await start(store, partition, starts, retention_ms)

    one = schedules(stage.store)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "start", of_another_time)
        assert await one.run_once() == (2, STALE_WAIT)
        assert await one.run_once() == (0, STALE_WAIT)
    assert (await one.run_once())[0] == 1


async def test_a_coordinator_that_stalled_does_not_move_the_cursor_back(stage: Stage):
    """Its tick would be the latest again, and the one after it be started twice."""
    moment = await now(stage.store)
    flow = flow_of(every_day_at(moment - timedelta(hours=2)))
    await offered_long_ago(stage, flow)
    await schedules(stage.store).run_once()
    field = registry.tick_field("nightly", 0, flow.plan)
    before = (await registry.tick_cursors(stage.store))[field]
    await registry.move_tick_cursor(stage.store, field, before - 24 * HOUR_MS)
    assert (await registry.tick_cursors(stage.store))[field] == before
    await registry.move_tick_cursor(stage.store, field, before + 1)
    assert (await registry.tick_cursors(stage.store))[field] == before + 1


async def test_a_plan_that_cannot_be_read_does_not_hold_up_the_schedules_of_other_flows(
    stage: Stage,
):
    """A worker of a later release offers it; a coordinator of that one starts its ticks."""
    due = await now(stage.store) - timedelta(hours=2)
    newer = flow_of(every_day_at(due), name="a-newer")
    await offered_long_ago(stage, newer)
    await stage.store.execute("HSET", stage.store.keys.meta.plans, newer.plan_hash, b"\xc1")
    await offered_long_ago(stage, flow_of(every_day_at(due)))
    assert (await schedules(stage.store).run_once())[0] == 1


async def test_the_runs_of_a_schedule_have_its_priority(stage: Stage):
    made = FlowBuilder("nightly").on_queue("q")
    for priority in (None, "low"):
        made = made.triggered_by(schedule("0 * * * *", priority=priority))
    flow = made.then(step("a")).build()
    await offered_long_ago(stage, flow)
    await schedules(stage.store).run_once()
    lanes = [(await stage.header(run_id)).queue for run_id in await open_runs(stage)]
    assert lanes == ["q", "q^low"]


# Where the run of a tick before is still open.


def overlapping(overlap: Overlap) -> Flow[Any, Any]:
    return flow_of("* * * * * *", overlap=overlap)


async def tick_once(stage: Stage) -> list[str]:
    """Let three coordinators look at the schedules, in a second of its own; what is open then."""
    now = await registry.server_ms(stage.store) // 1000
    while await registry.server_ms(stage.store) // 1000 == now:
        pass
    for _ in range(3):
        await schedules(stage.store).run_once()
    return await open_runs(stage)


async def test_a_tick_is_skipped_while_the_run_of_the_one_before_is_open(stage: Stage):
    await stage.offer(overlapping("skip"))
    (first,) = await tick_once(stage)
    assert await tick_once(stage) == [first]
    assert await stage.work() == 1
    assert await stage.status(first) == "completed"
    (second,) = await tick_once(stage)
    assert second != first
    assert tick_of(second, "nightly") is not None


async def test_a_tick_replaces_the_run_of_the_one_before(stage: Stage):
    await stage.offer(overlapping("replace"))
    (first,) = await tick_once(stage)
    await stage.coordinate()
    held = await stage.claim_one("worker")
    (second,) = set(await tick_once(stage)) - {first}
    await stage.coordinate()
    assert (await stage.header(second)).replaces == first
    await stage.complete("worker", held)
    await stage.work()
    assert await stage.status(first) == "cancelled"
    assert await stage.status(second) == "completed"


async def test_runs_that_a_client_starts_are_not_in_the_way_of_a_schedule(stage: Stage):
    flow = overlapping("skip")
    await stage.offer(flow)
    await stage.start(flow, "mine")
    assert len(await tick_once(stage)) == 2
