"""Nodes that are run by name: a process that has them, and not the code of the flow."""

from __future__ import annotations

from typing import Any

import msgspec

from resolute import FlowBuilder, FlowState, Node, RateLimit, RetryPolicy, manual, node, output
from resolute.model.flow import Flow
from resolute.status import NodeStatus, RunStatus
from resolute_worker.aftermath import settle_killed
from resolute_worker.shared import Overdue
from tests.support.flows import chain
from tests.support.stage import QUEUE, Stage
from tests.worker.parts import NAME, ONE, OTHER, Make

PARKED = f"{QUEUE}@!svc.charge"


@node("svc.charge", rate_limit="1000/s")
async def charge(amount: int) -> int:
    return amount * 10


@node("svc.refund")
async def refund(charged: int) -> int:
    return -charged


@node("begin")
async def begin() -> int:
    return 7


def amount(state: FlowState) -> int:
    return state[begin] + 1


CHARGE = Node.named("svc.charge", returns=int)


def flow_of(*nodes: Node[Any, Any], name: str = "billing") -> Flow[Any, Any]:
    builder: FlowBuilder[Any, Any] = FlowBuilder(name).triggered_by(manual())
    for one in nodes:
        builder = builder.then(one)
    return builder.build()


async def both_work(stage: Stage, ours: Any, theirs: Any) -> None:
    """The flow's process and the other team's, in turn, until nothing is left to do."""
    while True:
        await stage.coordinate()
        if (await stage.header()).status.is_terminal:
            return
        for parts in (ours, theirs):
            for _, queue in parts.reader._streams.values():
                for held in await stage.take(NAME, queue):
                    parts.deliver(held)
                await parts.idle()


@ONE
async def test_the_other_teams_process_runs_it_from_the_plan_alone(stage: Stage, make_parts: Make):
    flow = flow_of(begin, CHARGE.with_input(amount), CHARGE.as_("again"))
    theirs, ours = make_parts(nodes=(charge,)), make_parts(flow)
    await stage.begin_run(flow)
    await both_work(stage, ours, theirs)
    fields = await stage.hash()
    assert fields["status"] == b"completed"
    assert msgspec.msgpack.decode(fields["o:svc.charge"]) == 80
    assert msgspec.msgpack.decode(fields["o:again"]) == 800
    assert msgspec.msgpack.decode(fields["o:[svc.charge]"]) == 8


@ONE
async def test_who_does_not_offer_the_name_puts_it_where_those_read_who_do(
    stage: Stage, make_parts: Make
):
    flow = flow_of(CHARGE.with_input(5))
    await stage.begin_run(flow)
    await make_parts(flow).work()  # makes the input
    await stage.coordinate()
    await make_parts(flow).work()  # has the flow's code, but not the node's
    (parked,) = await stage.take(OTHER, PARKED)
    assert parked.entry.attempt == 1
    assert await stage.give_back(OTHER, parked, queue=QUEUE) == "OK"
    await make_parts(chain("a", flow="stranger")).work()  # has neither
    theirs = make_parts(nodes=(charge,))
    await theirs.work()
    await stage.coordinate()
    assert await stage.status() is RunStatus.COMPLETED


@ONE
async def test_its_retries_are_those_of_the_flow_and_its_limits_those_of_both(
    stage: Stage, make_parts: Make
):
    @node("svc.charge", retry=RetryPolicy(max_attempts=1), rate_limit=RateLimit(5, key=str))
    async def broken(amount: Any) -> int:
        raise ConnectionError("no")

    policy = RetryPolicy(max_attempts=2, initial_interval="1ms")
    flow = flow_of(CHARGE.with_retry(policy).with_rate_limit("100/s"))
    await stage.begin_run(flow)
    theirs = make_parts(nodes=(broken,))
    await theirs.read()
    limits = theirs.runner.offers._bound[flow.plan_hash, 0, 0, False].plan.limits
    assert [limit.bucket for limit in limits] == ["node:billing/svc.charge", "node:/svc.charge"]
    await theirs.idle()
    record = await stage.record_of("run", 1, 0)
    assert record is not None and (record.status, record.attempt) == (NodeStatus.WAITING, 2)


@ONE
async def test_a_result_that_the_flow_does_not_expect_is_a_final_error(
    stage: Stage, make_parts: Make
):
    flow = flow_of(Node.named("svc.charge", returns=list[int]).with_input(5))
    await stage.begin_run(flow)
    await make_parts(flow).work()
    await stage.coordinate()
    await make_parts(nodes=(charge,)).work()
    await stage.coordinate()
    error = (await stage.header()).error
    assert error is not None and error.type == "ValidationError"
    assert error.message == (
        "output of node 'svc.charge' is not what flow 'billing' expects: 50 is not of type 'array'"
        " - at `$`"
    )


@ONE
async def test_what_undoes_it_has_its_input_made_where_the_code_is(stage: Stage, make_parts: Make):
    @node("broken", retry=RetryPolicy(max_attempts=1))
    async def broken() -> None:
        raise ValueError("broken")

    seen: list[Any] = []

    @node("undo")
    async def undo(value: list[int]) -> None:
        seen.append(value)

    undone = CHARGE.on_error(undo.with_input([output("svc.charge"), output("begin")]))
    named = CHARGE.as_("two").on_error(Node.named("svc.refund"))
    flow = flow_of(begin, undone, named, broken)
    ours, theirs = make_parts(flow), make_parts(nodes=(charge, refund))
    await stage.begin_run(flow)
    await both_work(stage, ours, theirs)
    assert await stage.status() is RunStatus.FAILED
    assert seen == [[70, 7]]
    assert msgspec.msgpack.decode((await stage.hash())["uo:2"]) == -700


@ONE
async def test_a_plan_that_cannot_be_read_now_leaves_its_entries_pending(
    stage: Stage, make_parts: Make, monkeypatch: Any
):
    from resolute.errors import StoreUnavailable
    from resolute.store import registry

    flow = flow_of(CHARGE)
    await stage.begin_run(flow)
    theirs = make_parts(nodes=(charge,))
    load = registry.load_plan
    calls: list[str] = []

    async def away(store: Any, plan: str) -> Any:
        calls.append(plan)
        if len(calls) == 1:
            raise StoreUnavailable("away")
        return await load(store, plan)

    monkeypatch.setattr(registry, "load_plan", away)
    await theirs.read()
    assert not theirs.runner.jobs
    await theirs.reader.read_pending()
    await theirs.idle()
    await stage.coordinate()
    assert len(calls) == 2 and (await stage.hash())["status"] == b"failed"  # nil is no int


@ONE
async def test_an_overdue_one_has_timed_out_when_its_process_was_killed(stage: Stage):
    flow = flow_of(CHARGE)
    await stage.begin_run(flow)
    await stage.offer(process=NAME, nodes=(charge,))
    held = await stage.claim_one(NAME)
    overdue = [Overdue(held.partition.number, held.queue, held.id)]
    await settle_killed(stage.store, NAME, QUEUE, overdue)
    record = await stage.record(held)
    assert record is not None and record.status is NodeStatus.WAITING
    assert b"NodeTimeout" in (await stage.hash())["x:svc.charge"]


@ONE
async def test_also_what_came_from_the_stream_of_its_name_is_settled(stage: Stage):
    flow = flow_of(CHARGE)
    await stage.begin_run(flow)
    await stage.offer(process=NAME, nodes=(charge,))
    assert await stage.give_back(OTHER, await stage.take_one(OTHER), queue=PARKED) == "OK"
    await stage.claim_one(NAME, PARKED)
    await settle_killed(stage.store, NAME, QUEUE, [])
    back = await stage.take_one(OTHER)
    assert (back.entry.attempt, back.entry.crashes) == (1, 0)


@ONE
async def test_what_a_foreign_plan_does_not_name_waits_for_those_who_have_that_plan(
    stage: Stage, make_parts: Make
):
    flow = flow_of(begin)
    await stage.begin_run(flow)
    theirs = make_parts(nodes=(charge,))
    await theirs.work()
    assert theirs.runner.offers.knows(flow.plan_hash)
    await stage.take_one(OTHER, f"{QUEUE}@{flow.plan_hash}")
