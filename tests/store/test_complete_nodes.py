from __future__ import annotations

import asyncio

import pytest

from resolute.status import EventKind, NodeStatus, RunStatus
from resolute.store import nodes
from resolute.store.nodes import Completion
from tests.support.flows import builder, chain, chain_of, either, fan, undoable
from tests.support.keyspace import snapshot
from tests.support.stage import NIL, NO_UNDO_INPUT, Stage


async def test_a_completed_node_has_its_output_and_record_and_its_entry_is_gone(stage: Stage):
    await stage.begin_run(fan(2))
    one, two = await stage.claim("worker")
    assert await stage.complete("worker", one, b"\x05") == "OK"
    assert (await stage.hash())["o:n0"] == b"\x05"
    record = await stage.record(one)
    assert record is not None
    assert (record.status, record.process) == (NodeStatus.COMPLETED, "worker")
    assert record.begun is not None
    assert record.ended is not None
    assert record.ended >= record.begun
    assert (await stage.header()).pending == 1
    assert [entry_id for entry_id, _ in await stage.entries()] == [two.id]
    assert await nodes_pending(stage, two.stream) == [two.id]
    assert (await stage.stats())["nodes_completed"] == 1


async def nodes_pending(stage: Stage, stream: str) -> list[str]:
    rows = await stage.store.execute("XPENDING", stream, "workers", "-", "+", 100)
    return [str(row[0], "ascii") for row in rows]


async def test_the_node_that_settles_the_step_says_so_with_what_the_next_commit_needs(
    stage: Stage,
):
    await stage.begin_run(chain("a", "b"))
    held = await stage.claim_one("worker")
    await stage.complete("worker", held)
    header = await stage.header()
    (event,) = await stage.events()
    assert event.kind is EventKind.SETTLED
    assert (event.plan, event.pc, event.seq) == (header.plan, header.pc, header.seq)
    assert (event.rev, event.queue, event.arg) == (header.rev, "q", "")


async def test_a_predicate_s_answer_goes_into_the_event(stage: Stage):
    await stage.begin_run(either())
    await stage.complete("worker", await stage.claim_one("worker"))
    await stage.coordinate()
    await stage.complete("worker", await stage.claim_one("worker"), b"\xc2", arg="0")
    (event,) = await stage.events()
    assert event.arg == "0"
    await stage.coordinate()
    held = await stage.claim_one("worker")
    assert stage.node(held).name == "no"


@pytest.mark.parametrize("width", [2, 40])
async def test_however_its_nodes_are_completed_a_fan_in_fires_once(stage: Stage, width: int):
    """Each completed twice, by calls that run against each other."""
    await stage.begin_run(fan(width))
    claimed = await stage.claim("worker")
    calls = [stage.complete("worker", held) for held in claimed + claimed[::-1]]
    assert set(await asyncio.gather(*calls)) == {"OK"}
    assert (await stage.header()).pending == 0
    assert [event.kind for event in await stage.events()] == [EventKind.SETTLED]


async def test_before_the_last_node_nothing_is_said(stage: Stage):
    await stage.begin_run(fan(3))
    for held in (await stage.claim("worker"))[:2]:
        await stage.complete("worker", held)
        assert await stage.events() == []


async def test_completing_twice_is_completing_once(stage: Stage):
    await stage.begin_run(fan(2))
    held, _ = await stage.claim("worker")
    await stage.complete("worker", held, b"\x01")
    before = await snapshot(stage.store)
    assert await stage.complete("worker", held, b"\x02") == "OK"
    assert await snapshot(stage.store) == before


async def test_a_node_that_nobody_began_cannot_be_completed(stage: Stage):
    await stage.begin_run(fan(2))
    held, _ = await stage.take("worker")
    assert await stage.complete("worker", held) == "STALE"
    assert "o:n0" not in await stage.hash()
    assert (await stage.stats())["stale_attempts"] == 1


async def test_what_runs_when_the_run_fails_may_still_complete(stage: Stage):
    await stage.begin_run(fan(2))
    one, two = await stage.claim("worker")
    await stage.fail("worker", one)
    assert await stage.complete("worker", two, b"\x05") == "OK"
    assert (await stage.hash())["o:n1"] == b"\x05"
    assert [event.kind for event in await stage.events()] == [EventKind.LOOK, EventKind.LOOK]


async def test_what_can_be_compensated_is_stacked_in_the_order_of_completion(stage: Stage):
    flow = (
        builder("saga")
        .then(undoable("a"))
        .then_parallel("both", undoable("b"), undoable("c"))
        .build()
    )
    await stage.begin_run(flow)
    await stage.complete("worker", await stage.claim_one("worker"), undo=b"first")
    await stage.coordinate()
    b, c = await stage.claim("worker")
    await stage.complete("worker", c, undo=b"second")
    await stage.complete("worker", b, undo=b"third")
    found = await stage.hash()
    assert found["undos"] == b"3"
    assert [found[f"u:{n}"] for n in (1, 2, 3)] == [b"0|0|1", b"1|1|2", b"1|0|2"]
    assert [found[f"ui:{n}"] for n in (1, 2, 3)] == [b"first", b"second", b"third"]


async def test_the_output_of_a_compensation_is_its_own(stage: Stage):
    """It must not look like an output of the node that it undoes."""
    await stage.begin_run(chain_of(undoable("a"), undoable("b")))
    await stage.complete("worker", await stage.claim_one("worker"), b"\x01", undo=NO_UNDO_INPUT)
    await stage.coordinate()
    await stage.fail("worker", await stage.claim_one("worker"))
    await stage.coordinate()
    undo = await stage.claim_one("worker")
    await stage.complete("worker", undo, b"\x02")
    found = await stage.hash()
    assert (found["o:a"], found["uo:1"]) == (b"\x01", b"\x02")
    assert "o:undo-a" not in found
    assert found["undos"] == b"1"
    await stage.coordinate()
    assert await stage.status() == RunStatus.FAILED


async def test_a_stale_completion_does_not_spoil_the_others_of_its_call(stage: Stage):
    await stage.begin_run(fan(3))
    one, two, three = await stage.take("worker")
    await stage.begin("worker", one)
    await stage.begin("other", two)
    await stage.begin("worker", three)
    results = [Completion(held, stage.node(held).key, NIL) for held in (one, two, three)]
    assert await nodes.complete(stage.store, "worker", results) == ["OK", "STALE", "OK"]
    assert (await stage.header()).pending == 1


async def test_a_damaged_counter_is_an_error_of_its_own_and_is_not_made_worse(stage: Stage):
    await stage.begin_run(fan(2))
    one, two = await stage.claim("worker")
    await stage.store.execute("HSET", one.partition.flow("run"), "pending", 0)
    before = await stage.hash()
    assert (await stage.complete("worker", one)).startswith("ERROR")
    assert await stage.hash() == before
    await stage.store.execute("HSET", one.partition.flow("run"), "pending", 2)
    assert [await stage.complete("worker", held) for held in (one, two)] == ["OK", "OK"]


async def test_a_thousand_results_are_committed_in_a_few_calls(stage: Stage):
    await stage.begin_run(fan(1000))
    await stage.coordinate()
    claimed = await stage.take("worker", count=2000)
    assert len(claimed) == 1000
    for batch in nodes.chunks(claimed):
        await nodes.begin(stage.store, "worker", [(held, ()) for held in batch])
        results = [Completion(held, stage.node(held).key, b"\x01") for held in batch]
        assert set(await nodes.complete(stage.store, "worker", results)) == {"OK"}
    assert [event.kind for event in await stage.events()] == [EventKind.SETTLED]
    await stage.coordinate()
    assert (await stage.header()).seq == 2
    assert len([name for name in await stage.hash() if name.startswith("o:")]) == 1000


def test_a_batch_is_bounded_by_count_and_by_bytes():
    sizes = [10] * 600 + [nodes.MAX_BYTES // 2] * 5 + [3 * nodes.MAX_BYTES, 1]
    batches = list(nodes.chunks(sizes, int))
    assert [size for batch in batches for size in batch] == sizes
    assert max(len(batch) for batch in batches) <= nodes.MAX_ITEMS
    for batch in batches:
        assert len(batch) == 1 or sum(batch) <= nodes.MAX_BYTES


async def test_who_completes_what_another_process_completed_is_refused(stage: Stage):
    await stage.begin_run(fan(2))
    held, _ = await stage.claim("worker")
    await stage.complete("worker", held)
    before = await stage.hash()
    assert await stage.complete("other", held) == "STALE"
    assert await stage.hash() == before
    assert (await stage.stats())["stale_attempts"] == 1
