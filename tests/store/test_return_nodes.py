from __future__ import annotations

from resolute.status import EventKind, NodeStatus
from resolute.store.nodes import Held
from tests.support.flows import chain, fan
from tests.support.keyspace import snapshot
from tests.support.stage import Stage

FLOW = chain("a")


async def test_a_node_that_is_handed_back_comes_again_and_no_attempt_is_used_up(stage: Stage):
    await stage.begin_run(FLOW)
    held = await stage.claim_one("worker")
    assert await stage.give_back("worker", held) == "OK"
    record = await stage.record(held)
    assert record is not None
    assert (record.status, record.process) == (NodeStatus.READY, "")
    ((entry_id, entry),) = await stage.entries()
    assert entry_id == record.entry != held.id
    assert entry.token == record.token == held.entry.token.removesuffix(".0") + ".1"
    assert (entry.attempt, entry.crashes) == (1, 0)
    again = await stage.claim_one("other")
    assert await stage.complete("other", again) == "OK"


async def test_a_node_that_was_never_begun_can_be_handed_back(stage: Stage):
    """A surplus: a process read more than it has slots."""
    await stage.begin_run(FLOW)
    held = await stage.take_one("worker")
    assert await stage.give_back("worker", held) == "OK"
    assert (await stage.begin("worker", held)).code == "STALE"
    await stage.claim_one("other")


async def test_an_entry_can_be_moved_to_the_queue_of_the_workers_that_have_its_plan(stage: Stage):
    await stage.begin_run(FLOW)
    held = await stage.take_one("worker")
    queue = f"q@{held.entry.plan}"
    assert await stage.give_back("worker", held, queue=queue) == "OK"
    assert await stage.entries() == []
    again = await stage.claim_one("other", queue)
    assert await stage.complete("other", again) == "OK"
    assert await stage.entries(queue=queue) == []


async def test_a_deferred_node_waits_for_its_time_with_its_reservation(stage: Stage):
    await stage.begin_run(FLOW)
    held = await stage.claim_one("worker")
    assert await stage.give_back("worker", held, 5_000, hold="123:1") == "OK"
    record = await stage.record(held)
    assert record is not None
    assert (record.status, record.hold, record.attempt) == (NodeStatus.WAITING, "123:1", 1)
    assert await stage.entries() == []
    partition = stage.of("run")
    score = await stage.store.execute("ZSCORE", partition.timers, f"node|q|run|1|0|{record.token}")
    assert float(score) == record.ended


async def test_in_a_failing_run_what_is_handed_back_is_skipped(stage: Stage):
    await stage.begin_run(fan(2))
    one, two = await stage.claim("worker")
    await stage.fail("worker", one)
    assert await stage.give_back("worker", two) == "OK"
    record = await stage.record(two)
    assert record is not None
    assert record.status is NodeStatus.SKIPPED
    assert (await stage.header()).pending == 0
    assert {event.kind for event in await stage.events()} == {EventKind.LOOK}
    await stage.coordinate()
    assert await stage.status() == "failed"


async def test_handing_back_twice_is_handing_back_once(stage: Stage):
    await stage.begin_run(fan(3))
    one, two, three = await stage.claim("worker")
    for held, delay in ((one, 0), (two, 5_000)):
        await stage.give_back("worker", held, delay)
        before = await snapshot(stage.store)
        assert await stage.give_back("worker", held, delay) == "OK"
        assert await snapshot(stage.store) == before
    await stage.stop("run")
    await stage.give_back("worker", three)
    before = await snapshot(stage.store)
    assert await stage.give_back("worker", three) == "OK"
    assert await snapshot(stage.store) == before


async def test_a_node_handed_back_many_times_keeps_its_attempt_and_every_old_token_is_stale(
    stage: Stage,
):
    await stage.begin_run(FLOW)
    seen = [await stage.claim_one("worker")]
    for _ in range(12):
        await stage.give_back("worker", seen[-1])
        seen.append(await stage.claim_one("worker"))
    assert [held.entry.token.rpartition(".")[2] for held in seen] == [str(n) for n in range(13)]
    assert seen[-1].entry.attempt == 1
    for held in seen[:-1]:
        assert (await stage.begin("worker", held)).code == "STALE"
    assert await stage.complete("worker", seen[-1]) == "OK"


async def held_back(stage: Stage) -> Held:
    """A node that has a limiter's reservation and was read again."""
    await stage.begin_run(chain("a"))
    held = await stage.claim_one("worker")
    await stage.give_back("worker", held, 60_000, hold="77:2")
    await stage.make_due(held.partition)
    await stage.release(held.partition)
    return await stage.take_one("worker")


async def test_a_reservation_stays_with_a_node_that_was_not_begun(stage: Stage):
    await stage.give_back("worker", await held_back(stage))
    again = await stage.take_one("other")
    assert (await stage.begin("other", again)).hold == "77:2"


async def test_a_node_that_was_begun_has_used_its_reservation_up(stage: Stage):
    held = await held_back(stage)
    await stage.begin("worker", held)
    await stage.give_back("worker", held)
    record = await stage.record(held)
    assert record is not None
    assert (record.hold, record.begun) == ("", None)


async def test_a_hand_back_sent_again_after_a_later_one_was_skipped_is_stale(stage: Stage):
    await stage.begin_run(fan(2))
    one, two = await stage.claim("worker")
    await stage.give_back("worker", two)
    await stage.give_back("worker", await stage.claim_one("worker"))
    third = await stage.claim_one("worker")
    await stage.fail("worker", one)
    assert await stage.give_back("worker", third) == "OK"
    before = await stage.hash()
    assert await stage.give_back("worker", two) == "STALE"
    assert await stage.hash() == before
