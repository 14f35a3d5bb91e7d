"""After a process was killed on purpose: what it had pending is settled in its name."""

from __future__ import annotations

from typing import Any

from resolute.model.flow import Flow
from resolute.model.policies import RetryPolicy
from resolute.status import NodeStatus
from resolute.store.nodes import Held
from resolute.store.queries import Question, ask
from resolute_worker.aftermath import settle_killed
from resolute_worker.shared import Overdue
from tests.support.flows import chain_of, step
from tests.support.stage import NO_UNDO_INPUT, QUEUE, Stage

DEAD, OTHER = "host:1:dead", "host:2:other"
SLOW = step("slow", timeout="5s", retry=RetryPolicy(max_attempts=2))


async def begin_run(stage: Stage, flow: Flow[Any, Any]) -> None:
    """A run of a flow that the process offered which will be dead."""
    await stage.offer(flow, process=DEAD)
    await stage.start(flow)
    await stage.coordinate()


def place(held: Held, *, is_silent: bool = False) -> Overdue:
    """How the shared page names a node that is overdue."""
    return Overdue(held.partition.number, held.queue, held.id, is_silent)


async def test_what_was_not_overdue_is_handed_back_without_attempt_or_crash(stage: Stage):
    await begin_run(stage, chain_of(SLOW))
    await stage.claim_one(DEAD)
    await settle_killed(stage.store, DEAD, QUEUE, [])
    back = await stage.take_one(OTHER)
    assert (back.entry.attempt, back.entry.crashes) == (1, 0)


async def test_also_what_came_from_the_stream_of_its_own_plan(stage: Stage):
    flow = chain_of(SLOW)
    await begin_run(stage, flow)
    own = f"{QUEUE}@{flow.plan_hash}"
    assert await stage.give_back(OTHER, await stage.take_one(OTHER), queue=own) == "OK"
    await stage.claim_one(DEAD, own)
    await settle_killed(stage.store, DEAD, QUEUE, [])
    back = await stage.take_one(OTHER)
    assert (back.entry.attempt, back.entry.crashes) == (1, 0)


async def test_a_query_that_it_had_read_holds_back_nothing(stage: Stage):
    flow = chain_of(SLOW)
    await begin_run(stage, flow)
    await ask(stage.store, Question(stage.of("run"), QUEUE, flow.plan_hash, "run", 0, "nonce"))
    own = f"{QUEUE}@{flow.plan_hash}"
    assert await stage.give_back(OTHER, await stage.take_one(OTHER), queue=own) == "OK"
    question, node = await stage.take(DEAD, own)
    assert question.entry.is_query
    assert (await stage.begin(DEAD, node)).code == "OK"
    await settle_killed(stage.store, DEAD, QUEUE, [])
    assert (await stage.take_one(OTHER)).entry.crashes == 0


async def test_what_was_overdue_has_timed_out_and_is_retried_as_its_policy_says(stage: Stage):
    await begin_run(stage, chain_of(SLOW))
    for status in (NodeStatus.WAITING, NodeStatus.FAILED):
        held = await stage.claim_one(DEAD)
        await settle_killed(stage.store, DEAD, QUEUE, [place(held)])
        record = await stage.record(held)
        assert record is not None
        assert (record.status, record.crashes) == (status, 0)
        assert b"NodeTimeout" in (await stage.hash())["x:slow"]
        await stage.make_due(stage.of("run"))
        await stage.release(stage.of("run"))


async def test_an_overdue_compensation_has_the_timeout_and_the_retries_of_its_own(stage: Stage):
    undo = step("undo", timeout="7s", retry=RetryPolicy(max_attempts=9))
    flow = chain_of(step("book", retry=RetryPolicy(max_attempts=1)).on_error(undo), step("fails"))
    await begin_run(stage, flow)
    await stage.complete(OTHER, await stage.claim_one(OTHER), undo=NO_UNDO_INPUT)
    await stage.coordinate()
    await stage.fail(OTHER, await stage.claim_one(OTHER))
    await stage.coordinate()
    held = await stage.claim_one(DEAD)
    assert held.entry.undo == 1
    await settle_killed(stage.store, DEAD, QUEUE, [place(held)])
    record = await stage.record(held)
    assert record is not None
    assert record.status is NodeStatus.WAITING
    assert b"timeout of 7 s" in (await stage.hash())["ux:1"]
