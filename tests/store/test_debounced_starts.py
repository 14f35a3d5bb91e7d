"""Debounced starts: one run for many, with the last input, and no acknowledged one lost."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from resolute.model.flow import Flow
from resolute.status import RunStatus
from resolute.store import claims
from resolute.store.connection import ServerReply
from resolute.store.keys import debounce_claim
from resolute.store.runs import Start
from tests.support.flows import chain
from tests.support.keyspace import snapshot
from tests.support.memory_limit import full_memory
from tests.support.stage import QUEUE, Stage

FLOW: Flow[object, object] = chain("a")
KEY = debounce_claim("chain", "doc 7")
WAIT_MS = 60_000


class Caller:
    """A client that counts its calls."""

    def __init__(self, stage: Stage, name: str = "caller") -> None:
        self.stage = stage
        self.name = name
        self.number = 0
        self.ids = stage.ids(60)

    def make(
        self, value: int, *, wait_ms: int = WAIT_MS, most_ms: int = 0, call: str = ""
    ) -> claims.Debounced:
        """A start that has not been sent yet."""
        self.number += 1
        run_id = f"{self.name}-{self.number}"
        store = self.stage.store
        placed = claims.placed_id(store.keys, self.stage.of(self.ids[0]), run_id)
        start = Start(placed, "chain", QUEUE, bytes([value]))
        return claims.Debounced(start, KEY, wait_ms, most_ms, self.name, self.number, call)

    async def send(self, one: claims.Debounced) -> str:
        return await claims.debounce(self.stage.store, self.stage.of(self.ids[0]), one)

    async def start(self, value: int, *, wait_ms: int = WAIT_MS, most_ms: int = 0) -> str:
        return await self.send(self.make(value, wait_ms=wait_ms, most_ms=most_ms))


async def due_in(stage: Stage, run_id: str) -> float:
    """Seconds from the start of a run until it is to begin, by its timer and its hash alike."""
    header = await stage.header(run_id)
    timer = await stage.store.execute("ZSCORE", stage.of(run_id).timers, f"start||{run_id}|0|0|")
    assert header.due is not None and float(timer) == round(header.due * 1000)
    return header.due - header.started


async def begin(stage: Stage, run_id: str) -> None:
    """Let the time of a run have come."""
    await stage.make_due(stage.of(run_id))
    assert await stage.release(stage.of(run_id)) == ["OK"]


async def value_of(stage: Stage, run_id: str) -> int:
    return (await stage.hash(run_id))["input"][0]


async def test_starts_that_follow_each_other_are_one_run_with_the_last_input(stage: Stage):
    await stage.offer(FLOW)
    caller = Caller(stage)
    ids = {await caller.start(value) for value in (1, 2, 3)}
    (run_id,) = ids
    assert await value_of(stage, run_id) == 3
    assert await stage.events(run_id) == []
    await begin(stage, run_id)
    assert await stage.work() == 1
    assert await stage.status(run_id) == RunStatus.COMPLETED


async def test_each_start_puts_the_beginning_off_but_not_beyond_the_most(stage: Stage):
    caller = Caller(stage)
    run_id = await caller.start(1, wait_ms=5000, most_ms=8000)
    assert await due_in(stage, run_id) == pytest.approx(5.0, abs=0.01)
    await caller.start(2, wait_ms=7000, most_ms=60_000)
    assert await due_in(stage, run_id) == pytest.approx(7.0, abs=3.0)
    await caller.start(3, wait_ms=50_000, most_ms=8000)
    assert await due_in(stage, run_id) == pytest.approx(8.0, abs=0.01)


async def test_what_comes_after_it_has_begun_is_the_next_run(stage: Stage):
    await stage.offer(FLOW)
    caller = Caller(stage)
    first = await caller.start(1)
    await begin(stage, first)
    second = await caller.start(2)
    assert second != first
    assert (await value_of(stage, first), await value_of(stage, second)) == (1, 2)
    await stage.work()
    assert await stage.status(first) == RunStatus.COMPLETED
    assert await caller.start(3) == second
    assert await value_of(stage, second) == 3


async def test_a_start_that_is_sent_again_changes_nothing_whatever_came_between(stage: Stage):
    await stage.offer(FLOW)
    caller, other = Caller(stage), Caller(stage, "other")
    one = caller.make(1)
    run_id = await caller.send(one)
    two = other.make(2)
    assert await other.send(two) == run_id
    three = caller.make(3)
    assert await caller.send(three) == run_id
    before = await snapshot(stage.store)
    for caller_of, again in ((caller, one), (other, two), (caller, three)):
        assert await caller_of.send(again) == run_id
    assert await snapshot(stage.store) == before


async def test_a_start_that_was_overtaken_does_not_win_over_a_later_one(stage: Stage):
    caller = Caller(stage)
    early, late = caller.make(1), caller.make(2)
    run_id = await caller.send(late)
    assert await caller.send(early) == run_id
    assert await value_of(stage, run_id) == 2


async def test_a_resend_that_comes_when_the_run_has_begun_starts_no_other(stage: Stage):
    """The very same call, as a client sends it when the reply was lost."""
    await stage.offer(FLOW)
    caller = Caller(stage)
    run_id = await caller.start(1)
    sent: list[tuple[object, ...]] = []
    call = stage.store.call

    async def noting(*arguments: object) -> object:
        sent.append(arguments)
        return await call(*arguments)  # pyright: ignore[reportArgumentType]

    stage.store.call = noting  # pyright: ignore[reportAttributeAccessIssue]
    assert await caller.start(2) == run_id
    stage.store.call = call
    await begin(stage, run_id)
    before = await snapshot(stage.store)
    assert await call(*sent[-1]) == [[b"OK", run_id.encode()]]  # pyright: ignore[reportArgumentType]
    assert await snapshot(stage.store) == before
    await stage.work()


async def test_a_call_with_an_own_id_is_one_start_also_when_its_run_has_ended(stage: Stage):
    await stage.offer(FLOW)
    caller = Caller(stage)
    run_id = await caller.send(caller.make(1, call="delivery-1"))
    assert await caller.send(caller.make(2, call="delivery-2")) == run_id
    assert await caller.send(caller.make(1, call="delivery-1")) == run_id
    assert await value_of(stage, run_id) == 2
    await begin(stage, run_id)
    await stage.work()
    assert await caller.send(caller.make(2, call="delivery-2")) == run_id
    assert await caller.send(caller.make(3, call="delivery-3")) != run_id


async def test_a_pending_run_can_be_cancelled_and_the_next_start_is_another(stage: Stage):
    await stage.offer(FLOW)
    caller = Caller(stage)
    first = await caller.start(1)
    await stage.stop(first)
    second = await caller.start(2)  # before a coordinator has ended it
    assert second != first
    await stage.coordinate()
    assert await stage.status(first) == RunStatus.CANCELLED
    assert await caller.start(3) == second
    await stage.stop(second)
    await stage.coordinate()
    assert not await stage.store.execute("EXISTS", stage.of(second).claims)


async def test_however_timers_and_starts_race_no_start_is_lost(stage: Stage):
    """Each went into the run that it was told, which has the input of the last of them."""
    await stage.offer(FLOW)
    caller = Caller(stage)
    told: dict[str, list[tuple[int, int]]] = {}

    async def send(values: Sequence[int]) -> None:
        for value in values:
            one = caller.make(value, wait_ms=1, most_ms=1)
            told.setdefault(await caller.send(one), []).append((one.number, value))

    async def fire(senders: asyncio.Future[list[None]]) -> None:
        while not senders.done():
            await stage.release(stage.of(caller.ids[0]))

    senders = asyncio.gather(*(send(range(lane * 60, lane * 60 + 60)) for lane in range(3)))
    await asyncio.gather(senders, fire(senders))
    await stage.make_due(stage.of(caller.ids[0]))
    await stage.release(stage.of(caller.ids[0]))
    await stage.work()
    assert sorted(number for calls in told.values() for number, _ in calls) == list(range(1, 181))
    assert len(told) > 1
    for run_id, calls in told.items():
        assert await value_of(stage, run_id) == max(calls)[1]
        assert await stage.status(run_id) == RunStatus.COMPLETED


async def test_a_pending_run_whose_hash_was_deleted_by_hand_is_followed_by_another(stage: Stage):
    await stage.offer(FLOW)
    caller = Caller(stage)
    first = await caller.start(1)
    partition = stage.of(first)
    await stage.store.execute("DEL", partition.flow(first))
    second = await caller.start(2)
    assert second != first
    for index in (partition.open, partition.open_of("chain")):
        await stage.store.execute("ZREM", index, first)


async def test_in_a_full_memory_a_debounced_start_is_refused_and_writes_nothing(stage: Stage):
    caller = Caller(stage)
    await caller.start(1)
    before = await snapshot(stage.store)
    async with full_memory(stage.store):
        with pytest.raises(ServerReply, match="OOM"):
            await caller.start(2)
    assert await snapshot(stage.store) == before
