from __future__ import annotations

import msgspec

from resolute.status import NodeStatus
from resolute.store import nodes
from resolute.store.registry import server_ms
from tests.support.flows import chain, chain_of, fan, step, undoable
from tests.support.keyspace import snapshot
from tests.support.stage import NO_UNDO_INPUT, Stage

FLOW = chain("a", "b")


async def test_a_begun_node_is_claimed_by_its_process_with_entry_queue_and_time(stage: Stage):
    await stage.begin_run(FLOW)
    held = await stage.take_one("worker")
    before = await server_ms(stage.store)
    begun = await stage.begin("worker", held)
    after = await server_ms(stage.store)
    record = await stage.record(held)
    assert record is not None
    assert (record.status, record.process) == (NodeStatus.RUNNING, "worker")
    assert (record.token, record.entry, record.queue) == (held.entry.token, held.id, "q")
    assert (record.attempt, record.crashes, record.ended, record.hold) == (1, 0, None, "")
    assert record.begun is not None
    assert before <= record.begun <= after + 1
    assert before <= begun.now / 1000 <= after + 1


async def test_the_answer_has_the_rev_and_the_fields_that_were_asked_for(stage: Stage):
    await stage.begin_run(FLOW, data=b"\x07")
    held = await stage.take_one("worker")
    begun = await stage.begin("worker", held, ["input", "o:nothing", "queue"])
    assert begun.values == [b"\x07", None, b"q"]
    assert begun.rev == (await stage.header()).rev


async def test_thousands_of_fields_come_in_the_order_they_were_asked_for(stage: Stage):
    await stage.begin_run(FLOW)
    held = await stage.take_one("worker")
    key = held.partition.flow("run")
    await stage.store.execute("HSET", key, "o:1500", "there")
    begun = await stage.begin("worker", held, [f"o:{i}" for i in range(2500)])
    assert len(begun.values) == 2500
    assert [i for i, value in enumerate(begun.values) if value is not None] == [1500]


async def test_the_same_process_asking_twice_gets_the_same_answer(stage: Stage):
    await stage.begin_run(FLOW)
    held = await stage.take_one("worker")
    first = await stage.begin("worker", held, ["input"])
    before = await snapshot(stage.store)
    second = await stage.begin("worker", held, ["input"])
    assert await snapshot(stage.store) == before
    assert (second.code, second.rev, second.values) == (first.code, first.rev, first.values)


async def test_an_entry_stays_pending_while_its_node_runs(stage: Stage):
    await stage.begin_run(FLOW)
    held = await stage.claim_one("worker")
    pending = await stage.store.execute("XPENDING", held.stream, "workers", "-", "+", 10)
    assert [(row[0], row[1]) for row in pending] == [(held.id.encode(), b"worker")]


async def test_a_second_entry_of_a_claimed_node_is_stale_and_goes(stage: Stage):
    """Doubled delivery: every entry is written once more by a stranger."""
    await stage.begin_run(FLOW)
    held = await stage.claim_one("worker")
    payload = msgspec.msgpack.encode(held.entry)
    await stage.store.execute("XADD", held.stream, "*", "e", payload)
    double = await stage.take_one("worker")
    assert (await stage.begin("worker", double)).code == "STALE"
    assert [entry_id for entry_id, _ in await stage.entries()] == [held.id]
    assert await stage.complete("worker", held) == "OK"


async def test_an_entry_of_a_settled_node_is_stale_and_goes(stage: Stage):
    await stage.begin_run(FLOW)
    held = await stage.claim_one("worker")
    await stage.complete("worker", held)
    await stage.store.execute("XADD", held.stream, "*", "e", msgspec.msgpack.encode(held.entry))
    double = await stage.take_one("worker")
    assert (await stage.begin("worker", double)).code == "STALE"
    assert await stage.entries() == []


async def test_a_failing_run_wants_no_more_of_its_nodes(stage: Stage):
    await stage.begin_run(fan(2))
    one, two = await stage.take("worker")
    await stage.begin("worker", one)
    await stage.fail("worker", one)
    before = await stage.hash()
    assert (await stage.begin("worker", two)).code == "SKIP"
    assert await stage.hash() == before
    assert await stage.entries() == []


async def test_a_compensation_can_be_begun_and_is_given_its_stored_input(stage: Stage):
    await stage.begin_run(chain_of(undoable("a"), step("b")))
    await stage.complete("worker", await stage.claim_one("worker"), undo=NO_UNDO_INPUT)
    await stage.coordinate()
    await stage.fail("worker", await stage.claim_one("worker"))
    await stage.coordinate()
    undo = await stage.take_one("worker")
    assert undo.entry.undo == 1
    begun = await stage.begin("worker", undo, ["ui:1"])
    assert (begun.code, begun.values) == ("OK", [NO_UNDO_INPUT])


async def test_a_node_that_waited_for_a_limiter_is_given_back_its_reservation(stage: Stage):
    await stage.begin_run(FLOW)
    held = await stage.claim_one("worker")
    await stage.give_back("worker", held, 60_000, hold="123:4")
    await stage.make_due(held.partition)
    await stage.release(held.partition)
    again = await stage.take_one("worker")
    assert (await stage.begin("worker", again)).hold == "123:4"


async def test_a_damaged_record_is_an_error_of_its_own_and_not_of_the_batch(stage: Stage):
    await stage.begin_run(fan(3))
    one, two, three = await stage.take("worker")
    key = one.partition.flow("run")
    await stage.store.execute("HSET", key, f"n:{two.entry.seq}.1", "garbage")
    answers = await nodes.begin(stage.store, "worker", [(one, ()), (two, ()), (three, ())])
    assert [answer.code for answer in answers] == ["OK", "ERROR", "OK"]


async def test_a_batch_of_nodes_of_many_runs_is_begun_at_once(stage: Stage):
    await stage.offer(FLOW)
    for run_id in stage.ids(20):
        await stage.start(FLOW, run_id)
    await stage.coordinate()
    taken = await stage.take("worker")
    answers = await nodes.begin(stage.store, "worker", [(held, ["input"]) for held in taken])
    assert [answer.code for answer in answers] == ["OK"] * 20
    assert len({answer.rev for answer in answers}) == 20


async def test_an_entry_of_an_earlier_run_of_the_same_id_is_stale(stage: Stage):
    """The hash went, and the id was used again: the step has the same number, not the token."""
    await stage.begin_run(FLOW)
    old = await stage.take_one("worker")
    await stage.store.execute("DEL", old.partition.flow("run"))
    await stage.start(FLOW)
    await stage.coordinate()
    before = await stage.hash()
    assert (await stage.begin("worker", old)).code == "STALE"
    assert await stage.hash() == before
    await stage.claim_one("worker")


async def test_a_failing_run_wants_no_node_either_that_was_handed_back(stage: Stage):
    await stage.begin_run(fan(2))
    one, two = await stage.claim("worker")
    await stage.give_back("worker", two)
    again = await stage.take_one("worker")
    await stage.fail("worker", one)
    before = await stage.hash()
    assert (await stage.begin("worker", again)).code == "SKIP"
    assert await stage.hash() == before
    assert await stage.entries() == []


async def test_of_two_entries_of_a_node_the_one_that_was_begun_is_remembered(stage: Stage):
    """Doubled delivery, into another stream, of a node that has a record already."""
    await stage.begin_run(FLOW)
    await stage.give_back("worker", await stage.claim_one("worker"))
    first = await stage.take_one("worker")
    stream = first.partition.queue("other")
    await stage.store.execute("XADD", stream, "1-1", "e", msgspec.msgpack.encode(first.entry))
    double = await stage.take_one("worker", "other")
    assert (await stage.begin("worker", double)).code == "OK"
    record = await stage.record(double)
    assert record is not None
    assert (record.entry, record.queue) == ("1-1", "other")
    assert (await stage.begin("worker", double)).code == "OK"
    assert (await stage.begin("worker", first)).code == "STALE"
