"""A flow can say how long its ended runs are kept, and how many of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from resolute.coordinator.retention import LEAST_MS, Retention
from resolute.coordinator.ticks import LONG_AGO_MS, PassedTicks
from resolute.model.flow import Flow
from resolute.model.triggers import schedule, tick_id
from resolute.status import RunStatus
from resolute.store import ended, registry
from tests.support.flows import builder, step
from tests.support.stage import RETENTION_MS, Stage

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


def kept(flow: str = "kept", cron: str = "", **retention: Any) -> Flow[Any, Any]:
    """A flow with a retention of its own, if one is given."""
    made = builder(flow).then(step("a"))
    if cron:
        made = made.triggered_by(schedule(cron))
    return (made.with_retention(**retention) if retention else made).build()


async def ended_runs(
    stage: Stage, flow: Flow[Any, Any], ids: Sequence[str], ages: Sequence[int]
) -> None:
    """Runs of a flow that ended so many ms ago, by the hash and by the indexes."""
    await stage.offer(flow, process=f"offers-{flow.plan_hash}")
    for run_id in ids:
        await stage.start(flow, run_id)
    await stage.work()
    for run_id, age in zip(ids, ages, strict=True):
        await make_older(stage, flow.name, run_id, age)


async def make_older(stage: Stage, flow: str, run_id: str, age: int) -> None:
    partition, status = stage.of(run_id), await stage.status(run_id)
    end = await registry.server_ms(stage.store) - age
    await stage.store.execute("HSET", partition.flow(run_id), "ended", end)
    for index in (partition.ended(status), partition.ended(status, flow)):
        await stage.store.execute("ZADD", index, end, run_id)


async def left(stage: Stage, ids: Sequence[str]) -> list[str]:
    """Which of the runs are still there."""
    found = [await stage.store.execute("EXISTS", stage.of(i).flow(i)) for i in ids]
    return [run_id for run_id, there in zip(ids, found, strict=True) if there]


def retention(stage: Stage, retention_ms: int = DAY_MS) -> Retention:
    return Retention(stage.store, stage.catalog, retention_ms)


# By time.


async def test_each_flow_s_runs_are_kept_as_long_as_it_says(stage: Stage):
    ages = [HOUR_MS // 2, 2 * HOUR_MS, 2 * DAY_MS, 8 * DAY_MS]
    ids: dict[str, list[str]] = {}
    for name, own in (("short", "1h"), ("plain", None), ("long", "7d")):
        ids[name] = [f"{name}-{n}" for n in range(4)]
        flow = kept(name, after=own) if own else kept(name)
        await ended_runs(stage, flow, ids[name], ages)
    assert await retention(stage).run_once() == 3 + 2 + 1
    assert await left(stage, ids["short"]) == ids["short"][:1]
    assert await left(stage, ids["plain"]) == ids["plain"][:2]
    assert await left(stage, ids["long"]) == ids["long"][:3]


async def test_the_plan_that_was_offered_last_says_how_long(stage: Stage):
    await ended_runs(stage, kept(after="1h"), ["run"], [2 * HOUR_MS])
    await stage.offer(kept(after="7d"), process="the-newer")
    assert await retention(stage).run_once() == 0
    await stage.offer(kept(after="90m"), process="the-newest")
    assert await retention(stage).run_once() == 1


async def test_runs_of_a_flow_that_nobody_knows_are_kept_for_the_longest_time(stage: Stage):
    await stage.offer(kept("long", after="7d"))
    await ended_runs(stage, kept("lost"), ["new", "old"], [6 * DAY_MS, 8 * DAY_MS])
    await stage.store.execute("HDEL", stage.store.keys.meta.flows, "lost")
    await stage.store.execute("INCRBY", stage.store.keys.meta.version, 1)
    assert await retention(stage).run_once() == 1
    assert await left(stage, ["new", "old"]) == ["new"]


async def make_unreadable(stage: Stage, flow: Flow[Any, Any]) -> None:
    """Let the plan of a flow be of a later release."""
    await stage.store.execute("HSET", stage.store.keys.meta.plans, flow.plan_hash, b"\xc1")


async def test_a_flow_whose_plan_cannot_be_read_keeps_its_own_retention(stage: Stage):
    flow = kept(after="30d", keep_last=2)
    ids, ages = ["a", "b", "c", "d"], [2 * DAY_MS, 29 * DAY_MS, 29 * DAY_MS + HOUR_MS, 31 * DAY_MS]
    await ended_runs(stage, flow, ids[:2], ages[:2])
    await make_unreadable(stage, flow)
    assert await Retention(stage.store, Stage(stage.store).catalog, DAY_MS).run_once() == 0
    await ended_runs(stage, flow, ids[2:], ages[2:])
    assert await Retention(stage.store, Stage(stage.store).catalog, DAY_MS).run_once() == 2
    assert await left(stage, ids) == ["a", "b"]


async def test_the_time_to_live_of_a_run_follows_an_offer_whose_plan_cannot_be_read(stage: Stage):
    await stage.begin_run(kept())
    newer = kept(after="30d")
    await stage.offer(newer, process="the-newer")
    await make_unreadable(stage, newer)
    await stage.work()
    assert await stage.store.execute("PTTL", stage.of("run").flow("run")) > 29 * DAY_MS


async def of_an_earlier_release(stage: Stage, flow: Flow[Any, Any]) -> None:
    """Offer a flow as they did who wrote nothing of its retention."""
    raw = {"plan": flow.plan_hash, "queue": "q", "offered": 1}
    meta = stage.store.keys.meta
    await stage.store.execute("HSET", meta.flows, flow.name, msgspec.msgpack.encode(raw))
    await stage.store.execute("INCRBY", meta.version, 1)


async def test_for_an_offer_of_an_earlier_release_its_plan_says_how_long(stage: Stage):
    flow = kept(after="7d")
    await ended_runs(stage, flow, ["new", "old"], [6 * DAY_MS, 8 * DAY_MS])
    await of_an_earlier_release(stage, flow)
    assert await retention(stage).run_once() == 1
    assert await left(stage, ["new", "old"]) == ["new"]


async def test_where_neither_offer_nor_plan_says_it_the_longest_time_counts(stage: Stage):
    flow = kept(after="7d")
    await ended_runs(stage, flow, ["run"], [2 * DAY_MS])
    await of_an_earlier_release(stage, flow)
    await make_unreadable(stage, flow)
    await stage.offer(kept("long", after="30d"))
    other = Stage(stage.store)
    assert await Retention(stage.store, other.catalog, DAY_MS).run_once() == 0
    assert await left(stage, ["run"]) == ["run"]


async def test_an_id_that_now_belongs_to_another_flow_is_kept_as_that_one_says(stage: Stage):
    """Its place in the first flow's index is from before: the hash decides."""
    await ended_runs(stage, kept("long", after="7d"), ["run"], [2 * HOUR_MS])
    await stage.offer(kept("short", after="1h"), process="short")
    partition = stage.of("run")
    stale = partition.ended(RunStatus.COMPLETED, "short")
    await stage.store.execute("ZADD", stale, 1_000_000_000_000, "run")
    await ended.drop(stage.store, partition, RunStatus.COMPLETED, "short", [(1 << 52, "run")])
    assert await left(stage, ["run"]) == ["run"]
    assert await stage.store.execute("ZSCORE", stale, "run") is None
    assert await stage.store.execute("ZSCORE", partition.ended(RunStatus.COMPLETED), "run")


@pytest.mark.parametrize(("own", "period"), [("7d", 30.0), ("1m", 6.0), ("1s", 0.5)])
async def test_passes_come_often_enough_for_the_shortest_retention(
    stage: Stage, own: str, period: float
):
    await stage.offer(kept(after=own))
    one = retention(stage)
    await one.run_once()
    assert one.period == period


@pytest.mark.parametrize(("own", "hours"), [("7d", 169), ("1m", 1), (None, 1)])
async def test_an_ended_run_s_time_to_live_follows_its_flow(
    stage: Stage, own: str | None, hours: int
):
    await stage.begin_run(kept(after=own) if own else kept())
    await stage.work()
    ttl = await stage.store.execute("PTTL", stage.of("run").flow("run"))
    extra = RETENTION_MS if own is None else 60_000 if own == "1m" else 0
    assert hours * HOUR_MS + extra - 10_000 < ttl <= hours * HOUR_MS + extra


# By number.


@pytest.mark.parametrize("count", [5, 230])
async def test_of_too_many_the_oldest_go_over_all_partitions(stage: Stage, count: int):
    ids = [f"run-{n}" for n in range(count)]
    ages = [HOUR_MS + 10_000 * n for n in range(count)]
    await ended_runs(stage, kept(keep_last=3), ids, ages)
    assert await retention(stage).run_once() == count - 3
    assert await left(stage, ids) == ids[:3]
    assert await retention(stage).run_once() == 0


async def test_runs_are_counted_however_they_ended(stage: Stage):
    ids = [f"run-{n}" for n in range(4)]
    flow = kept(keep_last=2)
    await stage.offer(flow)
    for run_id in ids:
        await stage.start(flow, run_id)
    for run_id in ids[::2]:
        await stage.stop(run_id, terminate=True)
    await stage.work()
    for run_id, hours in zip(ids, (4, 3, 2, 1), strict=True):
        await make_older(stage, flow.name, run_id, hours * HOUR_MS)
    assert await retention(stage).run_once() == 2
    assert await left(stage, ids) == ids[2:]


async def test_what_ended_a_moment_ago_is_never_one_too_many(stage: Stage):
    """Whoever waits for its result has time to read it."""
    ids = ["a", "b", "c", "d"]
    ages = [LEAST_MS + 5_000, LEAST_MS - 20_000, 10, 0]
    await ended_runs(stage, kept(keep_last=1), ids, ages)
    assert await retention(stage).run_once() == 1
    assert await left(stage, ids) == ["b", "c", "d"]


async def test_open_runs_are_not_counted(stage: Stage):
    flow = kept(keep_last=2)
    await ended_runs(stage, flow, ["a", "b"], [HOUR_MS, 2 * HOUR_MS])
    for run_id in ("c", "d"):
        await stage.start(flow, run_id)
    assert await retention(stage).run_once() == 0


async def test_time_and_number_both_count(stage: Stage):
    ids = [f"run-{n}" for n in range(4)]
    ages = [HOUR_MS // 4, HOUR_MS // 3, HOUR_MS // 2, 2 * HOUR_MS]
    await ended_runs(stage, kept(after="1h", keep_last=2), ids, ages)
    assert await retention(stage).run_once() == 2
    assert await left(stage, ids) == ids[:2]


async def test_two_coordinators_do_not_delete_twice_as_many(stage: Stage):
    ids = [f"run-{n}" for n in range(60)]
    await ended_runs(stage, kept(keep_last=20), ids, [HOUR_MS + 10_000 * n for n in range(60)])
    passes = [Retention(stage.store, stage.catalog, DAY_MS).run_once() for _ in range(4)]
    await asyncio.gather(*passes)
    assert await left(stage, ids) == ids[:20]


async def test_the_runs_of_other_flows_are_not_counted(stage: Stage):
    await ended_runs(stage, kept("few", keep_last=1), ["a"], [HOUR_MS])
    await ended_runs(stage, kept("many"), ["b", "c"], [2 * HOUR_MS, 3 * HOUR_MS])
    assert await retention(stage).run_once() == 0


# Ticks.


async def passed(stage: Stage, *looks: tuple[int, int]) -> PassedTicks:
    """Cursors that were looked at: for each look how long ago (ms), and where they stood."""
    made = PassedTicks(stage.store, stage.catalog)
    await stage.catalog.refresh()
    for age, cursor in looks:
        await stage.put_cursor(FIELD, cursor)
        await made.look()
        assert made._next is not None
        made._next = made._next._replace(at=made._next.at - age)
    await made.look()
    return made


CRON = "0 4 * * *"
TICKING = kept(cron=CRON, keep_last=1)
FIELD = registry.tick_field("kept", 0, TICKING.plan)
TICK_MS = 1_700_020_800_000
TICK = tick_id("kept", 0, TICK_MS / 1000)


async def test_a_tick_s_run_may_go_once_its_cursor_was_seen_to_have_passed_long_ago(stage: Stage):
    await stage.offer(TICKING)
    assert (await passed(stage, (LONG_AGO_MS + 1, TICK_MS))).may_forget("kept", TICK)


@pytest.mark.parametrize(
    "looks",
    [
        [],
        [(LONG_AGO_MS - 10_000, TICK_MS)],
        [(LONG_AGO_MS + 1, TICK_MS - 1), (0, TICK_MS)],
    ],
    ids=["never looked", "looked just now", "had not passed then"],
)
async def test_else_another_coordinator_may_not_have_seen_it(
    stage: Stage, looks: list[tuple[int, int]]
):
    await stage.offer(TICKING)
    ticks = await passed(stage, *looks)
    assert not ticks.may_forget("kept", TICK)
    assert ticks.may_forget("kept", "run")
    assert ticks.may_forget("kept", f"{TICK}/~1")


async def test_a_tick_s_run_that_may_not_go_does_not_hold_back_the_others(stage: Stage):
    ids = [TICK, "a", "b", "c"]
    ages = [4 * HOUR_MS, 3 * HOUR_MS, 2 * HOUR_MS, HOUR_MS]
    await ended_runs(stage, TICKING, ids, ages)
    await stage.put_cursor(FIELD, TICK_MS)
    one = retention(stage)
    assert await one.run_once() == 2
    assert await left(stage, ids) == [TICK, "c"]
    assert one._ticks._next is not None
    one._ticks._next = one._ticks._next._replace(at=one._ticks._next.at - LONG_AGO_MS - 1)
    assert await one.run_once() == 1
    assert await left(stage, ids) == ["c"]


async def test_a_tick_of_a_schedule_that_the_flow_no_longer_has_may_go_after_that_time(
    stage: Stage,
):
    await stage.offer(TICKING)
    await stage.offer(kept(keep_last=1), process="without")
    assert not (await passed(stage, (0, 0))).may_forget("kept", TICK)
    assert (await passed(stage, (LONG_AGO_MS + 1, 0))).may_forget("kept", TICK)
