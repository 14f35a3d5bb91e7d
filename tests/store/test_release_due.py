from __future__ import annotations

import pytest

from resolute.coordinator.timers import MAX_WAIT, Timers
from resolute.status import NodeStatus, TimerKind
from resolute.store import transitions
from resolute.store.nodes import Held
from resolute.store.transitions import DueTimer, due_timers
from tests.support.flows import chain, fan
from tests.support.keyspace import snapshot
from tests.support.stage import Stage

FLOW = chain("a")


async def waiting(stage: Stage, delay: int = 60_000) -> Held:
    """A node that waits for its second attempt."""
    await stage.begin_run(FLOW)
    held = await stage.claim_one("worker")
    await stage.fail("worker", held, delay)
    return held


def timer_of(held: Held, token: str) -> DueTimer:
    entry = held.entry
    member = f"node|q|{entry.flow}|{entry.seq}|{entry.index}|{token}"
    return DueTimer(member.encode(), TimerKind.NODE, "q", entry.flow, entry.seq, entry.index, token)


async def test_a_node_whose_time_has_come_is_in_its_stream_again(stage: Stage):
    held = await waiting(stage, 0)
    assert await stage.release(held.partition) == ["OK"]
    record = await stage.record(held)
    assert record is not None
    ((entry_id, entry),) = await stage.entries()
    assert (record.status, record.entry, record.ended) == (NodeStatus.READY, entry_id, None)
    assert (entry.token, entry.attempt, entry.plan) == (record.token, 2, held.entry.plan)
    assert await stage.store.execute("ZCARD", held.partition.timers) == 0


async def test_nothing_is_released_before_its_time_by_the_clock_of_redis(stage: Stage):
    held = await waiting(stage)
    record = await stage.record(held)
    assert record is not None
    before = await snapshot(stage.store)
    codes = await transitions.release_due(
        stage.store, held.partition, [timer_of(held, record.token)]
    )
    assert codes == ["STALE"]
    assert await snapshot(stage.store) == before


async def test_of_two_coordinators_that_release_a_timer_one_does(stage: Stage):
    held = await waiting(stage, 0)
    due, _, _ = await due_timers(stage.store, held.partition)
    first = await transitions.release_due(stage.store, held.partition, due)
    second = await transitions.release_due(stage.store, held.partition, due)
    assert (first, second) == (["OK"], ["STALE"])
    assert len(await stage.entries()) == 1


async def test_a_timer_whose_node_has_gone_on_is_dropped(stage: Stage):
    held = await waiting(stage, 0)
    timers = held.partition.timers
    await stage.release(held.partition)
    stale = timer_of(held, held.entry.token)
    await stage.store.execute("ZADD", timers, 1, stale.member)
    before = await stage.hash()
    assert await stage.release(held.partition) == ["STALE"]
    assert await stage.hash() == before
    assert await stage.store.execute("ZCARD", timers) == 0
    assert len(await stage.entries()) == 1


async def test_a_timer_of_an_earlier_wait_does_not_end_a_later_one(stage: Stage):
    held = await waiting(stage, 0)
    await stage.release(held.partition)
    again = await stage.claim_one("worker")
    await stage.fail("worker", again, 60_000)
    earlier = timer_of(held, again.entry.token)
    await stage.store.execute("ZADD", held.partition.timers, 1, earlier.member)
    before = await stage.hash()
    assert await stage.release(held.partition) == ["STALE"]
    assert await stage.hash() == before
    assert await stage.entries() == []
    assert await stage.store.execute("ZCARD", held.partition.timers) == 1


async def test_a_timer_of_an_ended_run_is_dropped_and_one_of_no_run_too(stage: Stage):
    held = await waiting(stage)
    await stage.stop("run", terminate=True)
    await stage.coordinate()
    timers = held.partition.timers
    await stage.store.execute("ZADD", timers, 2, "node|q|nobody|1|0|1-x.0")
    await stage.make_due(held.partition)
    before = await stage.hash()
    assert sorted(await stage.release(held.partition)) == ["GONE", "STALE"]
    assert await stage.hash() == before
    assert await stage.store.execute("EXISTS", timers, held.partition.flow("nobody")) == 0
    assert await stage.entries() == []


async def test_a_reservation_survives_the_wait(stage: Stage):
    await stage.begin_run(FLOW)
    held = await stage.claim_one("worker")
    await stage.give_back("worker", held, 60_000, hold="77:2")
    await stage.make_due(held.partition)
    await stage.release(held.partition)
    record = await stage.record(held)
    assert record is not None
    assert record.hold == "77:2"


async def test_the_timer_of_a_damaged_run_is_thrown_away_and_does_not_keep_anybody_busy(
    stage: Stage,
):
    held = await waiting(stage, 0)
    await stage.store.execute("HSET", held.partition.flow("run"), "n:1.0", "garbage")
    await Timers(stage.store).run_once()
    assert await stage.store.execute("ZCARD", held.partition.timers) == 0
    assert (await Timers(stage.store).run_once())[0] == 0


@pytest.mark.parametrize("garbage", [b"garbage", b"node|q|run|x|0|t", b"node|q|run|1|0", b"\xff|"])
async def test_a_timer_that_is_none_is_thrown_away_and_delays_no_other(
    stage: Stage, garbage: bytes
):
    held = await waiting(stage, 0)
    await stage.store.execute("ZADD", held.partition.timers, 1, garbage)
    await Timers(stage.store).run_once()
    assert len(await stage.entries()) == 1
    assert await stage.store.execute("ZCARD", held.partition.timers) == 0


async def test_who_asks_for_due_timers_is_told_what_is_none_and_how_long_to_wait(stage: Stage):
    await stage.begin_run(fan(2))
    one, two = await stage.claim("worker")
    await stage.fail("worker", one, 0)
    await stage.fail("worker", two, 30_000)
    partition = one.partition
    await stage.store.execute("ZADD", partition.timers, 1, "garbage")
    due, strange, wait = await due_timers(stage.store, partition)
    assert [(timer.flow, timer.seq, timer.index, timer.queue) for timer in due] == [
        ("run", 1, 0, "q")
    ]
    assert strange == [b"garbage"]
    assert wait == pytest.approx(30, abs=5)
    await stage.store.execute("ZREM", partition.timers, "garbage")


async def test_more_timers_than_fit_in_one_look_are_looked_at_again_at_once(stage: Stage):
    await stage.begin_run(fan(3))
    for held in await stage.claim("worker"):
        await stage.fail("worker", held, 0)
    due, _, wait = await due_timers(stage.store, stage.of("run"), limit=2)
    assert (len(due), wait) == (2, 0.0)


async def test_without_timers_there_is_nothing_to_wait_for(stage: Stage):
    assert await due_timers(stage.store, stage.of("run")) == ([], [], None)


@pytest.mark.parametrize("is_begun", [False, True])
async def test_a_timer_that_comes_a_second_time_releases_nothing(stage: Stage, is_begun: bool):
    held = await waiting(stage, 0)
    await stage.release(held.partition)
    record = await stage.record(held)
    assert record is not None
    if is_begun:
        await stage.claim_one("worker")
    timers = held.partition.timers
    await stage.store.execute("ZADD", timers, 1, timer_of(held, record.token).member)
    before = await stage.hash()
    assert await stage.release(held.partition) == ["STALE"]
    assert await stage.hash() == before
    assert len(await stage.entries()) == 1
    assert await stage.store.execute("EXISTS", timers) == 0


async def test_a_look_at_the_timers_says_how_long_to_sleep(stage: Stage):
    held = await waiting(stage, 2_000)
    assert 0 < (await Timers(stage.store).run_once())[1] <= 2
    await stage.make_due(held.partition)
    assert await Timers(stage.store).run_once() == (1, MAX_WAIT)
