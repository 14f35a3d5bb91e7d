"""Events in, transitions out: also where an event is damaged, doubled, late, or another's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from resolute.coordinator.committing import ENDED, OF_A_RUN, SKIPPED, TOLD
from resolute.coordinator.dispatcher import MAX_DELIVERIES
from resolute.engine.run import PAGE_OF_SKIPS
from resolute.errors import StoreUnavailable
from resolute.model.messages import Event
from resolute.status import EventKind
from resolute.store import registry, streams, transitions
from resolute.store.keys import Partition
from resolute.store.nodes import MAX_BYTES
from resolute.store.script import GROUP_COORDINATORS
from resolute.store.store import Store
from tests.coordinator.test_reconciler import lose
from tests.support.flows import builder, chain, chain_of, fan, step
from tests.support.keyspace import snapshot
from tests.support.stage import Stage, forget

FLOW = chain("a", "b")
encode = msgspec.msgpack.encode


async def put(stage: Stage, raw: bytes | Event) -> None:
    """Put something into the inbox of the run's partition."""
    data = encode(raw) if isinstance(raw, Event) else raw
    await stage.store.execute("XADD", stage.of("run").inbox, "*", "e", data)


async def read_settled(stage: Stage) -> list[streams.Message]:
    """That the first node of a run has settled: read, and not handled yet."""
    await stage.begin_run(FLOW)
    await stage.complete("worker", await stage.claim_one("worker"))
    return await stage.read_inbox(stage.of("run"))


async def dead_letters(stage: Stage) -> list[dict[bytes, bytes]]:
    rows = await stage.store.execute("XRANGE", stage.of("run").dead, "-", "+")
    return [dict(zip(fields[::2], fields[1::2], strict=True)) for _, fields in rows]


async def inbox_length(stage: Stage) -> int:
    return await stage.store.execute("XLEN", stage.of("run").inbox)


# What one script does.


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[list[transitions.Commit]]:
    """The commits of each call that follows."""
    found: list[list[transitions.Commit]] = []
    commit = transitions.commit

    async def noted(
        store: Store, partition: Partition, commits: Sequence[transitions.Commit], kept: int
    ) -> list[tuple[str, str]]:
        found.append(list(commits))
        return await commit(store, partition, commits, kept)

    monkeypatch.setattr(transitions, "commit", noted)
    return found


def skipped(batch: Sequence[transitions.Commit]) -> int:
    ranges = (change.skip for change in batch if change.skip is not None)
    return sum(stop - start for start, stop, _ in ranges)


async def test_wide_runs_that_are_cancelled_together_hold_no_script_for_long(
    stage: Stage, batches: list[list[transitions.Commit]]
):
    flow = fan(PAGE_OF_SKIPS + 20)
    await stage.offer(flow)
    ids = stage.ids(4)
    for run_id in ids:
        await stage.start(flow, run_id)
    await stage.coordinate()
    for run_id in ids:
        await stage.stop(run_id)
    batches.clear()
    await stage.coordinate()
    counts = [count for batch in batches if (count := skipped(batch))]
    assert sum(counts) == 4 * (PAGE_OF_SKIPS + 20)
    assert max(counts) <= MAX_BYTES // SKIPPED
    assert [await stage.status(run_id) for run_id in ids] == ["cancelled"] * 4


async def test_children_that_many_runs_start_and_stop_hold_no_script_for_long(
    stage: Stage, batches: list[list[transitions.Commit]]
):
    child = builder("kid").then(step("work")).build()
    flow = builder("dad").then_children("kids", flow=child, inputs=lambda _: range(90)).build()
    await stage.offer(child, flow)
    ids = stage.ids(4)
    for run_id in ids:
        await stage.start(flow, run_id)
    await stage.coordinate()
    for held in await stage.claim("w"):
        assert await stage.store_items("w", held, [b"\x01"] * 90) == "OK"
        assert await stage.complete("w", held, b"\x5a", arg="90") == "OK"
    batches.clear()
    await stage.coordinate()
    most = MAX_BYTES // OF_A_RUN
    families = [[change.family for change in batch] for batch in batches]
    starts = [
        sum(len(one.ids) for one in batch if isinstance(one, transitions.StartChildren))
        for batch in families
    ]
    assert (sum(starts), max(starts) <= most) == (360, True)
    for run_id in ids:
        await stage.stop(run_id)
    batches.clear()
    await stage.coordinate()
    stops = [
        sum(len(one.ids) for one in batch if isinstance(one, transitions.StopChildren))
        for batch in ([change.family for change in batch] for batch in batches)
    ]
    assert (sum(stops), max(stops) <= most) == (360, True)
    told = [sum(isinstance(c.family, transitions.TellParent) for c in batch) for batch in batches]
    assert (sum(told), max(told) <= MAX_BYTES // (ENDED + TOLD)) == (360, True)
    assert [await stage.status(run_id) for run_id in ids] == ["cancelled"] * 4


# Events that are none.


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        encode(["explode", "run"]),
        encode({"kind": "look"}),
        b"\xff" * 300,
        encode(["look", "run"]).replace(b"run", b"r\xecn"),  # no UTF-8
    ],
)
async def test_what_is_no_event_is_a_dead_letter_with_its_raw_bytes(stage: Stage, raw: bytes):
    await stage.begin_run(FLOW)
    await put(stage, raw)
    await stage.coordinate()
    (letter,) = await dead_letters(stage)
    assert (letter[b"origin"], letter[b"raw"]) == (b"inbox", raw)
    assert letter[b"why"]
    assert await inbox_length(stage) == 0


@pytest.mark.parametrize(
    "damage",
    [
        {"pc": 77},
        {"pc": -1},
        {"kind": EventKind.PAGE, "arg": "x"},
        {"kind": EventKind.PAGE, "pc": 77},
    ],
    ids=str,
)
async def test_an_event_that_cannot_be_decided_does_not_hold_up_those_beside_it(
    stage: Stage, damage: dict[str, object]
):
    """All in one batch: were it given up, its events would be dead letters after five tries."""
    await stage.offer(FLOW)
    one, two, three = stage.ids(3, stage.of("run").number)
    for run_id in (one, three):
        await stage.start(FLOW, run_id)
    header_event = Event(EventKind.SETTLED, two, FLOW.plan_hash, 0, 1, "1-x", "q")
    await put(stage, msgspec.structs.replace(header_event, **damage))
    await stage.start(FLOW, two)
    await stage.coordinate()
    assert {entry.flow for _, entry in await stage.entries(one)} >= {one, three, two}
    assert await inbox_length(stage) == 0


@pytest.mark.parametrize(
    ("field", "value"), [("status", "rXnning"), ("seq", "x"), ("pc", "77"), ("undos", "-")]
)
async def test_a_damaged_run_does_not_hold_up_those_beside_it(stage: Stage, field: str, value: str):
    await stage.offer(FLOW)
    one, two, three = stage.ids(3, stage.of("run").number)
    for run_id in (one, two, three):
        await stage.start(FLOW, run_id)
    await stage.coordinate()
    key = stage.of(two).flow(two)
    kept = await stage.store.execute("HGET", key, field)
    await stage.store.execute("HSET", key, field, value)
    for run_id in (one, two, three):
        await stage.stop(run_id)
        await put(stage, Event(EventKind.LOOK, run_id))
    await stage.coordinate()
    assert [await stage.status(run_id) for run_id in (one, three)] == ["cancelled"] * 2
    if kept is None:
        await stage.store.execute("HDEL", key, field)
    else:
        await stage.store.execute("HSET", key, field, kept)
    await put(stage, Event(EventKind.LOOK, two))


async def test_an_event_of_a_run_that_is_not_there_goes(stage: Stage):
    await stage.offer(FLOW)
    for kind in (EventKind.LOOK, EventKind.SETTLED, EventKind.PAGE):
        await put(stage, Event(kind, "nobody", FLOW.plan_hash, 0, 1, "1-x", "q", "0 t"))
    await stage.coordinate()
    assert await inbox_length(stage) == 0
    assert await stage.hash("nobody") == {}


async def test_an_event_with_a_plan_that_nobody_stored_is_decided_by_the_run(stage: Stage):
    await stage.begin_run(FLOW)
    await stage.complete("worker", await stage.claim_one("worker"))
    await stage.coordinate()
    await put(stage, Event(EventKind.SETTLED, "run", "nowhere", 0, 1, "1-x", "q"))
    before = await stage.hash()
    await stage.coordinate()
    assert await stage.hash() == before
    assert await inbox_length(stage) == 0


# Doubled, late, out of order.


async def test_every_event_of_a_run_again_in_any_order_changes_nothing(stage: Stage):
    await stage.offer(FLOW)
    await stage.start(FLOW)
    seen: list[bytes] = []
    while not (await stage.status()).is_terminal:
        entries = await stage.store.execute("XRANGE", stage.of("run").inbox, "-", "+")
        seen += [message.payload or b"" for message in streams.parse_entries(entries)]
        await stage.coordinate()
        for held in await stage.claim("worker"):
            await stage.complete("worker", held)
    before = await stage.hash()
    for raw in seen[::-1] + seen:
        await put(stage, raw)
    await stage.coordinate()
    assert await stage.hash() == before
    assert await stage.entries() == []


async def test_many_events_of_one_run_in_one_batch_are_one_transition(stage: Stage):
    await stage.begin_run(FLOW)
    await stage.complete("worker", await stage.claim_one("worker"))
    for _ in range(20):
        await put(stage, Event(EventKind.LOOK, "run"))
    await stage.coordinate()
    assert (await stage.header()).seq == 2
    assert len(await stage.entries()) == 1
    assert await inbox_length(stage) == 0


async def test_a_transition_that_lost_its_race_is_decided_again_from_the_run(stage: Stage):
    """Cancelled between the settled event and its handling."""
    settled = await read_settled(stage)
    await stage.stop("run")
    await stage.dispatcher.handle(stage.of("run"), settled)
    assert await stage.status() == "cancelled"
    assert await stage.entries() == []


# Wake and sweep.


async def test_wake_and_sweep_are_passed_on_and_go(stage: Stage):
    await stage.coordinate()
    wakes, sweeps = stage.wakes, stage.sweeps
    await put(stage, Event(EventKind.WAKE))
    await put(stage, Event(EventKind.SWEEP))
    await stage.coordinate()
    assert (stage.wakes, stage.sweeps) == (wakes + 1, sweeps + 1)
    assert await inbox_length(stage) == 0


# Which plan.


async def test_a_run_is_pinned_to_the_plan_of_the_worker_that_started_last(stage: Stage):
    old, new = chain("a"), chain("a", "b")
    await stage.offer(old, process="1-old")
    await stage.offer(new, process="2-new")
    await stage.start("chain")
    await stage.coordinate()
    assert (await stage.header()).plan == new.plan_hash


async def test_also_where_that_registered_just_after_a_look_at_the_registry(stage: Stage):
    old, new = chain("a"), chain("a", "b")
    await stage.offer(old, process="1-old")
    await stage.catalog.refresh(exact=True)  # no time passes from here on
    stage.clock.tick = 0.0
    await stage.offer(new, process="2-new")
    await stage.start("chain")
    await stage.coordinate()
    assert (await stage.header()).plan == new.plan_hash


async def test_a_pinned_run_keeps_its_plan(stage: Stage):
    old, new = chain("a", "b"), chain("x")
    await stage.begin_run(old)
    await stage.offer(new, process="the-newer")
    assert await stage.work() == 2
    assert (await stage.header()).plan == old.plan_hash


async def test_without_a_living_worker_a_run_is_pinned_to_what_was_offered_last(stage: Stage):
    old, new = chain("a"), chain("a", "b")
    for flow, process in ((old, "1"), (new, "2")):
        await stage.offer(flow, process=process)
    for process in ("1", "2"):
        await forget(stage.store, process)
    await stage.start("chain")
    await stage.coordinate()
    assert (await stage.header()).plan == new.plan_hash


async def test_a_run_of_a_flow_that_nobody_offers_stays_open_and_unpinned(stage: Stage):
    assert await stage.start("nobody-s") == "OK"
    await stage.coordinate()
    header = await stage.header()
    assert (header.status, header.plan) == ("running", "")


async def test_a_node_without_a_queue_goes_to_the_run_s_and_one_with_a_queue_to_its_own(
    stage: Stage,
):
    await stage.offer(chain_of(step("a"), step("b", queue="gpu")))
    await stage.start("chain", queue="here")
    await stage.coordinate()
    assert len(await stage.entries(queue="here")) == 1
    await stage.complete("worker", await stage.claim_one("worker", "here"))
    await stage.coordinate()
    assert len(await stage.entries(queue="gpu")) == 1


# Taking over.


async def make_idle(stage: Stage, *, deliveries: int = 1) -> None:
    """Let what coordinators have pending have been so for long, and delivered so often."""
    inbox = stage.of("run").inbox
    rows = await stage.store.execute("XPENDING", inbox, GROUP_COORDINATORS, "-", "+", 1000)
    if rows:
        ids = [row[0] for row in rows]
        await stage.store.execute(
            "XCLAIM", inbox, GROUP_COORDINATORS, "another", 0, *ids, "IDLE", 60_000,
            "RETRYCOUNT", deliveries, "JUSTID",
        )  # fmt: skip


async def test_events_that_another_coordinator_read_and_did_not_finish_are_taken_over(
    stage: Stage,
):
    await stage.offer(FLOW)
    await stage.coordinate()
    await stage.start(FLOW)
    other = Stage(stage.store, name="stage:1:dies")
    await other.read_inbox(stage.of("run"))
    assert await stage.dispatcher.take_over() == 0  # it may still be at it
    await make_idle(stage)
    assert await stage.dispatcher.take_over() >= 1
    assert len(await stage.entries()) == 1
    assert await inbox_length(stage) == 0


async def test_both_coordinators_may_finish_what_was_taken_over(stage: Stage):
    await stage.offer(FLOW)
    await stage.coordinate()
    await stage.start(FLOW)
    other = Stage(stage.store, name="stage:1:slow")
    messages = await other.read_inbox(stage.of("run"))
    await make_idle(stage)
    await asyncio.gather(
        stage.dispatcher.take_over(), other.dispatcher.handle(stage.of("run"), messages)
    )
    assert len(await stage.entries()) == 1


async def test_an_event_delivered_too_often_is_a_dead_letter_and_its_run_is_repaired(
    stage: Stage,
):
    await read_settled(stage)
    await make_idle(stage, deliveries=MAX_DELIVERIES)
    await stage.dispatcher.take_over()
    (letter,) = [one for one in await dead_letters(stage) if b"settled" in one[b"raw"]]
    assert b"deliveries" in letter[b"why"]
    assert await inbox_length(stage) == 0
    assert (await stage.header()).seq == 1


async def test_a_deleted_event_that_is_still_pending_is_acknowledged(stage: Stage):
    partition = stage.of("run")
    messages = await read_settled(stage)
    await stage.store.execute("XDEL", partition.inbox, messages[0].id)
    gone = [streams.Message(message.id, None) for message in messages]
    await stage.dispatcher.handle(partition, gone)
    pending = await stage.store.execute("XPENDING", partition.inbox, GROUP_COORDINATORS)
    assert pending[0] == 0
    await put(stage, Event(EventKind.LOOK, "run"))


async def test_a_batch_is_handled_as_a_whole(stage: Stage):
    flow = fan(3)
    await stage.offer(flow)
    ids = stage.ids(120)
    for run_id in ids:
        await stage.start(flow, run_id)
    before = await snapshot(stage.store)
    assert len(before) > 120
    assert await stage.coordinate() >= 120
    assert len(await stage.entries(ids[0])) == 360
    assert await stage.work() == 480


async def test_a_run_that_keeps_changing_waits_for_another_try(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    partition = stage.of("run")
    messages = await read_settled(stage)

    async def lose_race(_store: Any, _partition: Any, commits: Any, _retention: int) -> Any:
        await asyncio.sleep(0)
        return [("CONFLICT", "")] * len(commits)

    with monkeypatch.context() as patch:
        patch.setattr(transitions, "commit", lose_race)
        async with asyncio.timeout(10):
            await stage.dispatcher.handle(partition, messages)
    assert [event.kind for event in await stage.events()] == [EventKind.SETTLED]
    await stage.dispatcher.handle(partition, messages)
    assert (await stage.header()).seq == 2


async def test_an_event_is_no_dead_letter_because_redis_is_away(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    partition = stage.of("run")
    messages = await read_settled(stage)

    async def away(_: str) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(stage.catalog, "plan", away)
        with pytest.raises(StoreUnavailable):
            await stage.dispatcher.handle(partition, messages)
    assert await dead_letters(stage) == []
    assert [event.kind for event in await stage.events()] == [EventKind.SETTLED]
    await stage.dispatcher.handle(partition, messages)
    assert (await stage.header()).seq == 2


async def test_an_event_that_cannot_be_decided_is_a_dead_letter(stage: Stage):
    await stage.begin_run(FLOW)
    await put(stage, Event(EventKind.PAGE, "run", FLOW.plan_hash, 0, 1, "1-x", "q", "x"))
    await stage.coordinate()
    (letter,) = await dead_letters(stage)
    assert letter[b"origin"] == b"inbox"
    assert b"page" in letter[b"raw"]
    assert letter[b"why"]
    assert await inbox_length(stage) == 0


async def test_the_last_delivery_of_an_event_is_handled_as_every_one_before(stage: Stage):
    await read_settled(stage)
    await make_idle(stage, deliveries=MAX_DELIVERIES - 1)
    await stage.dispatcher.take_over()
    assert await dead_letters(stage) == []
    assert (await stage.header()).seq == 2


async def test_an_event_with_a_plan_that_nobody_stored_still_moves_its_run(stage: Stage):
    await stage.begin_run(FLOW)
    await stage.complete("worker", await stage.claim_one("worker"))
    await lose(stage, "inbox")
    await put(stage, Event(EventKind.SETTLED, "run", "nowhere", 0, 1, "1-x", "q"))
    await stage.coordinate()
    assert (await stage.header()).seq == 2


async def test_in_a_large_batch_it_is_the_run_that_lost_its_race_that_is_decided_again(
    stage: Stage,
):
    """Commits go out in parts: an answer belongs to its own event in the later parts too."""
    await stage.offer(FLOW)
    ids = stage.ids(260)
    for run_id in ids:
        await stage.start(FLOW, run_id)
    partition = stage.of(ids[0])
    messages = await stage.read_inbox(partition)
    await stage.stop(ids[-1])
    await stage.dispatcher.handle(partition, messages)
    assert await stage.status(ids[-1]) == "cancelled"


async def test_of_living_workers_the_one_that_started_last_says_the_plan_whatever_its_name(
    stage: Stage,
):
    old, new = chain("a"), chain("a", "b")
    await stage.offer(old, process="2-old")
    first = await registry.server_ms(stage.store)
    while await registry.server_ms(stage.store) == first:
        pass
    await stage.offer(new, process="1-new")
    await stage.start("chain")
    await stage.coordinate()
    assert (await stage.header()).plan == new.plan_hash


async def test_a_run_is_pinned_to_a_living_worker_s_plan_rather_than_to_the_last_offer(
    stage: Stage,
):
    old, new = chain("a"), chain("a", "b")
    await stage.offer(old, process="1-old")
    await stage.offer(new, process="2-new")
    await forget(stage.store, "2-new")
    await stage.start("chain")
    await stage.coordinate()
    assert (await stage.header()).plan == old.plan_hash


async def test_a_dead_letter_is_what_was_in_the_inbox_byte_for_byte(stage: Stage):
    """Not what we would write: a later version's event says more than ours."""
    await stage.begin_run(FLOW)
    event = [EventKind.PAGE, "run", FLOW.plan_hash, 0, 1, "1-x", "q", "x", "of a later version"]
    await put(stage, encode(event))
    await stage.coordinate()
    (letter,) = await dead_letters(stage)
    assert letter[b"raw"] == encode(event)
