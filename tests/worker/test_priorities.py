"""Priorities in a worker process: who begins first, and that who hands out again keeps them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from resolute import Node, RateLimit, RetryPolicy, TerminalError
from resolute.model.flow import Flow
from resolute.model.nodes import AsyncNode
from resolute.priority import Priority, lane_of, lanes_of
from resolute.status import NodeStatus, RunStatus
from resolute.store.nodes import Return, give_back
from resolute.store.runs import Record
from resolute_worker.aftermath import settle_killed
from tests.support.flows import builder, chain_of, step
from tests.support.stage import QUEUE, Stage
from tests.worker.parts import NAME, ONE, OTHER, PATIENCE, Gate, Make, held_by

HIGH, NORMAL, LOW = Priority
P3 = pytest.mark.parametrize("partitions", [3], indirect=True)


class Notes:
    """A node that writes down the runs in the order in which they began it."""

    def __init__(self) -> None:
        self.order: list[Any] = []

    async def __call__(self, value: Any) -> Any:
        self.order.append(value)
        return value


def noted(notes: Notes) -> Flow[Any, Any]:
    return chain_of(AsyncNode("note", notes.__call__))


async def start(stage: Stage, flow: Flow[Any, Any], run_id: str, priority: Priority) -> None:
    data = b"\xa4" + priority.value[:4].ljust(4).encode()  # a text of four
    await stage.start(flow, run_id, data, queue=lane_of(QUEUE, priority))


async def lanes_with_work(stage: Stage) -> dict[str, int]:
    """How many entries are in each lane of the queue, in the partition of the run."""
    partition = stage.of("run")
    found = {
        lane: int(await stage.store.execute("XLEN", partition.queue(lane)))
        for lane in lanes_of(QUEUE)
    }
    return {lane: count for lane, count in found.items() if count}


async def fire(stage: Stage) -> None:
    """Let what waits for a time go on."""
    await stage.make_due(stage.of("run"))
    await stage.release(stage.of("run"))


async def record(stage: Stage, seq: int, index: int) -> Record:
    found = await stage.record_of("run", seq, index)
    assert found is not None
    return found


async def test_high_nodes_overtake_those_that_wait_and_low_ones_get_their_share(
    stage: Stage, make_parts: Make
):
    notes = Notes()
    flow = noted(notes)
    await stage.offer(flow)
    for number, run_id in enumerate(stage.ids(60)):
        await start(stage, flow, run_id, (LOW, NORMAL, HIGH)[number // 20])
    await stage.coordinate()
    parts = make_parts(flow, slots=1)
    for _ in range(60):
        await parts.work()
    assert len(notes.order) == 60
    for begun in (10, 20):  # of the first thirty slots every priority has more than it can get
        first = notes.order[:begun]
        assert [first.count(one) for one in ("high", "norm", "low ")] == [
            begun * 6 // 10, begun * 3 // 10, begun // 10
        ]  # fmt: skip


@pytest.mark.parametrize("priority", Priority)
@pytest.mark.parametrize("where", ["first", "last"])
async def test_a_read_that_waits_wakes_for_each_lane_of_each_partition(
    stage: Stage, make_parts: Make, priority: Priority, where: str
):
    notes = Notes()
    flow = noted(notes)
    number = 0 if where == "first" else len(stage.store.keys.partitions) - 1
    (run_id,) = stage.ids(1, number)
    await stage.offer(flow)
    parts = make_parts(flow)
    await parts.reader.ensure_groups()
    reading = asyncio.create_task(parts.reader._read_once())
    name = f"{NAME}:queue".encode()
    while not any(name in line and b"cmd=xreadgroup" in line and b"flags=b" in line
                  for line in await _clients(stage)):  # fmt: skip
        assert not reading.done()
    await start(stage, flow, run_id, priority)
    await stage.coordinate()
    async with asyncio.timeout(PATIENCE):
        await reading
    await parts.idle()
    assert len(notes.order) == 1


async def _clients(stage: Stage) -> list[bytes]:
    return (await stage.store.execute("CLIENT", "LIST")).splitlines()


@ONE
async def test_a_retry_and_a_wait_for_a_limit_keep_the_lane(stage: Stage, make_parts: Make):
    failed: list[int] = []

    async def fail_once(_: Any) -> None:
        failed.append(1)
        if len(failed) == 1:
            raise ConnectionError("not yet")

    quick = RetryPolicy(initial_interval="1ms", jitter=0.0)
    node: Node[Any, Any] = AsyncNode("n", fail_once, retry=quick, rate_limit=RateLimit(1, "0.2s"))
    flow = chain_of(node.with_priority("high"))
    await stage.begin_run(flow)
    parts = make_parts(flow)
    seen: list[dict[str, int]] = []
    while not (await stage.header()).status.is_terminal:
        seen.append(await lanes_with_work(stage))
        if seen[-1]:
            await parts.work()
        await stage.coordinate()
        await fire(stage)
    assert len(failed) == 2
    waited = [lanes for lanes in seen if lanes]
    assert len(waited) >= 2
    assert all(lanes == {f"{QUEUE}^high": 1} for lanes in waited)


@ONE
async def test_what_a_process_hands_back_or_leaves_behind_stays_in_its_lane(
    stage: Stage, make_parts: Make
):
    flow = chain_of(held_by(Gate()).with_priority("low"))
    await stage.begin_run(flow)
    lane = lane_of(QUEUE, LOW)
    held = await stage.claim_one(NAME, lane)
    await give_back(stage.store, NAME, [Return(held, held.lane)])
    assert await lanes_with_work(stage) == {lane: 1}
    await stage.reclaim(await stage.claim_one(OTHER, lane), OTHER)
    assert await lanes_with_work(stage) == {lane: 1}
    await stage.claim_one(NAME, lane)
    await settle_killed(stage.store, NAME, QUEUE, [])
    assert await lanes_with_work(stage) == {lane: 1}
    assert (await stage.take_one(OTHER, lane)).entry.crashes == 1


@ONE
async def test_surplus_goes_back_to_the_lane_that_it_came_from(stage: Stage, make_parts: Make):
    gate = Gate()
    flow = chain_of(held_by(gate))
    for run_id, priority in (("one", HIGH), ("two", LOW)):
        await stage.offer(flow)
        await start(stage, flow, run_id, priority)
    await stage.coordinate()
    parts = make_parts(flow, slots=1)
    for held in [*await stage.take(NAME, lane_of(QUEUE, HIGH)),
                 *await stage.take(NAME, lane_of(QUEUE, LOW))]:  # fmt: skip
        parts.deliver(held)
    await gate.wait()
    await parts.settle()
    assert (await stage.take_one(OTHER, lane_of(QUEUE, LOW))).entry.flow == "two"
    gate.open.set()
    await parts.idle()


@ONE
async def test_a_node_put_where_only_some_read_comes_back_to_its_own_lane(
    stage: Stage, make_parts: Make
):
    """The stream of those who offer it has nodes of every priority, so the entry says it."""
    attempts: list[int] = []

    async def serve(value: Any) -> Any:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError("not yet")
        return value

    served: Node[Any, Any] = AsyncNode("svc", serve)
    quick = RetryPolicy(initial_interval="1ms", jitter=0.0)
    named: Node[Any, Any] = Node.named("svc").with_retry(quick)
    flow = chain_of(named, step("after"))
    theirs, ours = make_parts(nodes=(served,)), make_parts(flow)
    await stage.offer(flow)
    await start(stage, flow, "run", HIGH)
    await stage.coordinate()
    await ours.work()  # it has no such node
    ((_, moved),) = await stage.entries("run", f"{QUEUE}@!svc")
    assert moved.priority == "high"
    await theirs.work()
    assert (
        await record(stage, 1, 0)
    ).queue == f"{QUEUE}^high"  # it failed, and will be tried again
    await fire(stage)
    assert await lanes_with_work(stage) == {f"{QUEUE}^high": 1}
    await theirs.work()
    await stage.coordinate()
    await ours.work()
    await stage.coordinate()
    assert await stage.status() is RunStatus.COMPLETED


@ONE
async def test_two_priorities_in_one_stream_are_begun_each_under_its_own_name(
    stage: Stage, make_parts: Make
):
    gate = Gate()
    served: Node[Any, Any] = AsyncNode("svc", gate.__call__)
    named: Node[Any, Any] = Node.named("svc")
    both = builder("both").then_parallel(
        "two", named.as_("a").with_priority("high"), named.as_("b").with_priority("low")
    )
    flow = both.build()
    theirs, ours = make_parts(nodes=(served,)), make_parts(flow)
    await stage.begin_run(flow)
    await ours.work()
    await ours.read()
    await ours.idle()
    await theirs.read()
    await gate.wait()
    records = [await record(stage, 1, index) for index in range(2)]
    assert [one.status for one in records] == [NodeStatus.RUNNING] * 2
    assert [one.queue for one in records] == [f"{QUEUE}^high@!svc", f"{QUEUE}^low@!svc"]
    gate.open.set()
    await theirs.idle()


@ONE
async def test_windowed_items_in_such_a_stream_keep_their_priority(stage: Stage, make_parts: Make):
    async def serve(value: Any) -> Any:
        return value

    served: Node[Any, Any] = AsyncNode("svc", serve)
    named: Node[Any, Any] = Node.named("svc")
    flow = (
        builder("windowed")
        .then_each("all", named.with_priority("high"), items=lambda _: [1, 2, 3], max_concurrency=1)
        .build()
    )
    theirs, ours = make_parts(nodes=(served,)), make_parts(flow)
    await stage.begin_run(flow)
    await ours.work()
    await stage.coordinate()
    await ours.work()
    for index in (0, 1):
        assert (await stage.entries("run", f"{QUEUE}@!svc"))[0][1].priority == "high"
        await theirs.work()
        assert (await record(stage, 2, index)).queue == f"{QUEUE}^high@!svc"


@ONE
async def test_a_compensation_waits_in_the_lane_of_its_node(stage: Stage, make_parts: Make):
    async def fail(_: Any) -> None:
        raise TerminalError("no")

    flow = chain_of(
        step("a", priority="low").on_error(step("undo")), AsyncNode("b", fail)
    )  # fmt: skip
    await stage.begin_run(flow)
    parts = make_parts(flow)
    for _ in range(2):
        await parts.work()
        await stage.coordinate()
    assert await lanes_with_work(stage) == {f"{QUEUE}^low": 1}


@P3
async def test_children_have_the_priority_of_their_parent_unless_said_otherwise(stage: Stage):
    kid = chain_of(step("k"), flow="kid")
    parent = (
        builder("parent")
        .then_children("same", flow=kid, inputs=lambda _: [1])
        .then_children("other", flow=kid, inputs=lambda _: [1], priority="low")
        .build()
    )
    await stage.offer(parent, kid)
    await start(stage, parent, "run", HIGH)
    await stage.coordinate()
    for name, lane in (("same", f"{QUEUE}^high"), ("other", f"{QUEUE}^low")):
        await _answer_items(stage)
        child = f"run/{name}.0"
        assert (await stage.header(child)).queue == lane
        held = await stage.claim_one(OTHER, lane)
        assert held.entry.flow == child
        await stage.complete(OTHER, held)
        await stage.coordinate()


async def _answer_items(stage: Stage) -> None:
    """What a worker does when it is asked for a list of one item."""
    lister = await stage.claim_one(OTHER, f"{QUEUE}^high")
    await stage.store_items(OTHER, lister, [b"\x01"])
    await stage.complete(OTHER, lister, b"\x01", arg="1")
    await stage.coordinate()
