"""Runs that a run starts: begun in pages, waited for, stopped with their parent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from resolute.client.history import read_fields
from resolute.client.retrying import plan_retry
from resolute.coordinator.reconciler import Reconciler
from resolute.engine.run import PAGE_OF_RUNS
from resolute.model.flow import Flow
from resolute.status import NodeStatus, RunStatus
from resolute.store import runs
from tests.support.flows import builder, step, undoable
from tests.support.stage import Stage

CHILD = builder("child").then(undoable("work")).build()


def parent(window: int | None = None, on_child_error: Any = "fail_fast") -> Flow[Any, Any]:
    made = builder("parent").then_children(
        "kids",
        flow=CHILD,
        inputs=lambda _: [],
        max_concurrency=window,
        on_child_error=on_child_error,
    )
    return made.then(step("last")).build()


async def started(stage: Stage, flow: Flow[Any, Any], count: int) -> None:
    """A run whose children have begun, as far as its window lets them."""
    await stage.offer(*flow.family())
    await stage.start(flow)
    await stage.coordinate()
    held = await stage.claim_one("lister")
    items = [msgspec.msgpack.encode(number) for number in range(count)]
    for start in range(0, count, 400):
        assert await stage.store_items("lister", held, items[start : start + 400], start) == "OK"
    packed = msgspec.msgpack.encode(count)
    assert await stage.complete("lister", held, packed, arg=str(count)) == "OK"
    await stage.coordinate()


async def finish(stage: Stage, *children: str) -> None:
    """Let these complete; the others' nodes stay with the worker that took them."""
    for held in await stage.take("worker"):
        if held.entry.flow in children:
            assert (await stage.begin("worker", held)).code == "OK"
            output = msgspec.msgpack.encode(f"by {held.entry.flow}")
            assert await stage.complete("worker", held, output, undo=b"\x92\x00\xc0") == "OK"
    await stage.coordinate()


async def states(stage: Stage, count: int) -> list[NodeStatus | None]:
    records = [await stage.record_of("run", 2, index) for index in range(count)]
    return [record.status if record else None for record in records]


@pytest.mark.parametrize("count", [1, PAGE_OF_RUNS, PAGE_OF_RUNS + 3])
async def test_each_input_starts_a_run_in_the_parents_partition(stage: Stage, count: int):
    await started(stage, parent(), count)
    for index in (0, count - 1):
        child = await stage.hash(f"run/kids.{index}")
        assert child["input"] == msgspec.msgpack.encode(index)
        assert (child["flow"], child["queue"]) == (b"child", b"q")
    open_ones = await stage.store.execute("ZCARD", stage.of("run").open_of("child"))
    assert open_ones == count
    assert set(await states(stage, count)) == {NodeStatus.WAITING}
    await finish(stage, *(f"run/kids.{index}" for index in range(count)))
    fields = await stage.hash()
    assert fields[f"o:kids[{count - 1}]"] == msgspec.msgpack.encode(f"by run/kids.{count - 1}")
    assert [entry.pc for _, entry in await stage.entries()] == [2]
    assert (await stage.header()).previous == 1


async def test_the_end_of_a_child_lets_the_next_begin(stage: Stage):
    await started(stage, parent(2), 5)
    assert await states(stage, 5) == [NodeStatus.WAITING] * 2 + [None] * 3
    await finish(stage, "run/kids.1")
    done, waiting = NodeStatus.COMPLETED, NodeStatus.WAITING
    assert await states(stage, 5) == [waiting, done, waiting, None, None]
    assert (await stage.header()).page == 3


async def test_a_child_that_failed_cancels_the_others_and_is_the_parents_error(stage: Stage):
    await started(stage, parent(), 3)
    taken = await stage.claim("worker")
    assert await stage.fail("worker", taken[1]) == "OK"
    await stage.coordinate()
    assert await stage.status() is RunStatus.FAILING
    assert await stage.status("run/kids.1") is RunStatus.FAILED
    for index in (0, 2):
        assert await stage.status(f"run/kids.{index}") is RunStatus.FAILING
        assert await stage.complete("worker", taken[index], undo=b"\x92\x00\xc0") == "OK"
    await stage.coordinate()
    # Each undoes what it did before its parent goes on.
    undoing = await stage.claim("worker")
    assert [held.entry.flow for held in undoing] == ["run/kids.0", "run/kids.2"]
    for held in undoing:
        assert await stage.complete("worker", held) == "OK"
    await stage.coordinate()
    assert await stage.status("run/kids.0") is RunStatus.CANCELLED
    header = await stage.header()
    assert header.status is RunStatus.FAILED
    assert header.error is not None
    assert str(header.error) == "kids[1]: ChildFailed: run run/kids.1 failed: ValueError: boom"


async def test_a_child_that_may_fail_leaves_a_hole(stage: Stage):
    await started(stage, parent(1, "continue"), 2)
    (held,) = await stage.claim("worker")
    assert await stage.fail("worker", held) == "OK"
    await stage.coordinate()
    assert await states(stage, 2) == [NodeStatus.FAILED, NodeStatus.WAITING]
    await finish(stage, "run/kids.1")
    assert [entry.pc for _, entry in await stage.entries()] == [2]


@pytest.mark.parametrize("count", [3, PAGE_OF_RUNS + 3])
async def test_terminating_a_run_terminates_its_children_and_waits_for_none(
    stage: Stage, count: int
):
    await started(stage, parent(), count)
    taken = await stage.claim("worker")
    await stage.stop("run", terminate=True)
    await stage.coordinate()
    assert await stage.status() is RunStatus.TERMINATED
    for index in (0, count - 1):
        assert await stage.status(f"run/kids.{index}") is RunStatus.TERMINATED
    assert await stage.store.execute("ZCARD", stage.of("run").open) == 0
    assert await stage.complete("worker", taken[0], undo=b"\x92\x00\xc0") == "STALE"


async def test_a_run_that_was_cancelled_can_be_terminated_with_its_children(stage: Stage):
    await started(stage, parent(), 2)
    await stage.claim("worker")
    await stage.stop("run")
    await stage.coordinate()
    assert await stage.status("run/kids.0") is RunStatus.FAILING
    await stage.stop("run", terminate=True)
    await stage.coordinate()
    assert await stage.status("run/kids.0") is RunStatus.TERMINATED


async def test_a_child_that_ends_after_its_parent_tells_nobody(stage: Stage):
    await started(stage, parent(), 1)
    (held,) = await stage.claim("worker")
    key = stage.of("run").flow("run")
    await stage.store.execute("HSET", key, "status", "terminated")
    before = await stage.hash()
    assert await stage.complete("worker", held, undo=b"\x92\x00\xc0") == "OK"
    await stage.coordinate()
    assert await stage.status("run/kids.0") is RunStatus.COMPLETED
    assert await stage.hash() == before
    await stage.store.execute("HSET", key, "status", "running")


@pytest.mark.parametrize("gone", [True, False], ids=["gone", "ended"])
async def test_a_node_whose_child_nobody_will_end_fails(stage: Stage, gone: bool):
    await started(stage, parent(), 2)
    child = stage.of("run").flow("run/kids.0")
    if gone:
        await stage.store.execute("DEL", child)
    else:
        await stage.store.execute("HSET", child, "status", "completed", "ended", 1)
    reconciler = Reconciler(stage.store, stage.catalog, 0.0, lambda _: False)
    assert await reconciler.run_once() > 0
    await stage.coordinate()
    header = await stage.header()
    assert header.error is not None
    assert str(header.error) == "kids[0]: ChildFailed: run run/kids.0 is gone, or its end was lost"
    assert await stage.status("run/kids.1") is RunStatus.CANCELLED
    if not gone:
        await stage.store.execute("HSET", child, "status", "running")
        await stage.stop("run/kids.0", terminate=True)
        await stage.coordinate()


async def test_a_run_left_from_a_former_parent_of_that_id_is_replaced(stage: Stage):
    partition = stage.of("run")
    await stage.offer(CHILD)
    old = runs.Start("run/kids.0", "child", "q", b"\x01")
    await runs.start(stage.store, partition, [old], 60_000)
    await stage.stop("run/kids.0", terminate=True)
    await stage.coordinate()
    assert await stage.status("run/kids.0") is RunStatus.TERMINATED
    await started(stage, parent(), 1)
    assert (await stage.hash("run/kids.0"))["input"] == b"\x00"
    await finish(stage, "run/kids.0")
    assert await states(stage, 1) == [NodeStatus.COMPLETED]


async def test_a_retried_child_tells_its_former_parent_nothing(stage: Stage):
    await started(stage, parent(), 1)
    (held,) = await stage.claim("worker")
    await stage.fail("worker", held)
    await stage.coordinate()
    source = await stage.header("run/kids.0")
    fields = await read_fields(stage.store, source.id, "s:", "n:", "x:")
    found = plan_retry(source, CHILD.plan, fields)
    target = "run/kids.0/~1"
    assert await runs.retry(stage.store, source, target, found.drop, found.fields) == "OK"
    await stage.coordinate()
    before = await stage.hash()
    await finish(stage, target)
    assert await stage.status(target) is RunStatus.COMPLETED
    assert await stage.hash() == before
