"""How a node that runs is stopped, and what comes of its attempt."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import msgspec
import pytest

from resolute.errors import RetryAfter, StoreUnavailable
from resolute.model.classifying import Verdict
from resolute.model.flow import Flow
from resolute.model.nodes import AsyncNode, Node, SyncNode
from resolute.model.state import FlowState
from resolute.status import NodeStatus, RunStatus
from resolute.store import nodes
from resolute.store.store import Store
from resolute_worker import committer
from resolute_worker.jobs import Job, Stop
from tests.support.flows import builder, chain_of, echo, step
from tests.support.stage import QUEUE, Stage
from tests.worker.parts import (
    NAME,
    ONCE,
    ONE,
    OTHER,
    PATIENCE,
    Gate,
    Make,
    begin_held,
    run_first,
    run_held,
)


async def fails(_: object) -> None:
    raise ValueError("no")


PLAIN: Node[Any, Any] = AsyncNode("echo", echo)
FAILING: Node[Any, Any] = AsyncNode("fails", fails, retry=ONCE)


# Stopping.


@ONE
async def test_only_the_hand_out_that_is_named_is_cancelled(stage: Stage, make_parts: Make):
    parts, gate = await run_held(stage, make_parts)
    ((_, entry),) = await stage.entries()
    parts.runner.cancel_nodes(["run|1.0|of-another-hand-out", "gone|1.0|x"])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert gate.stopped == 0
    parts.runner.cancel_nodes([f"run|1.0|{entry.token}"])
    await parts.idle()
    assert gate.stopped == 1


@ONE
async def test_a_job_that_is_stopped_before_its_first_step_is_reported(
    stage: Stage, make_parts: Make
):
    gate = Gate()
    parts = make_parts(await begin_held(stage, gate))
    job = parts.adopt(await stage.take_one(NAME))
    job.begun = await stage.begin(NAME, job.held)
    parts.runner._start(job)
    job.request_stop(Stop.HAND_BACK)
    await parts.idle()
    assert gate.began == 0
    assert (await stage.take_one(OTHER)).entry.attempt == 1


@ONE
async def test_a_claim_that_is_gone_ends_its_job_without_a_word(stage: Stage, make_parts: Make):
    parts, gate = await run_held(stage, make_parts)
    held = parts.job().held
    await stage.reclaim(held, NAME)
    elsewhere = await stage.claim_one(OTHER)
    await parts.runner.reaffirm()
    await parts.idle()
    assert gate.stopped == 1
    assert (await stage.stats()).get("stale_attempts", 0) == 0
    assert await stage.complete(OTHER, elsewhere) == "OK"


@ONE
async def test_a_node_whose_outcome_overtakes_its_claim_is_not_left_claimed(
    stage: Stage, make_parts: Make, monkeypatch: pytest.MonkeyPatch
):
    """The server forgot the claim; the outcome was refused before the claim was made anew."""
    parts, gate = await run_held(stage, make_parts)
    await stage.store.execute("HDEL", stage.of("run").flow("run"), "n:1.0")
    begin = nodes.begin

    async def late(*args: Any) -> list[nodes.Begun]:
        gate.open.set()
        await parts.idle()
        return await begin(*args)

    monkeypatch.setattr(nodes, "begin", late)
    await parts.runner.reaffirm()
    monkeypatch.undo()
    record = await stage.record_of("run", 1, 0)
    assert record is not None
    assert record.status is NodeStatus.READY
    await parts.work()
    await stage.coordinate()
    assert await stage.status() is RunStatus.COMPLETED
    assert gate.began == 2


@ONE
async def test_a_process_hands_back_what_it_is_asked_for_and_does_not_run(
    stage: Stage, make_parts: Make
):
    """Its server had executed a claim of which it was told that it failed, say."""
    gate = Gate()
    parts = make_parts(await begin_held(stage, gate))
    held = await stage.claim_one(NAME)
    await stage.store.execute("XTRIM", stage.of("run").queue(QUEUE), "MAXLEN", 0)
    parts.runner.cancel_nodes([nodes.question(held)])
    while parts.runner._side_tasks:
        await asyncio.wait(parts.runner._side_tasks)
    await parts.read()
    await gate.wait()
    parts.runner.cancel_nodes([nodes.question(parts.job().held)])  # this one does run
    gate.open.set()
    await parts.idle()
    await stage.coordinate()
    assert await stage.status() is RunStatus.COMPLETED
    assert gate.began == 1


@ONE
async def test_a_node_that_is_handed_out_to_us_again_runs_once_more(stage: Stage, make_parts: Make):
    parts, gate = await run_held(stage, make_parts)
    held = parts.job().held
    await stage.reclaim(held, NAME)
    await parts.read()  # the new hand-out comes to the very process that runs the old one
    await parts.idle()
    assert gate.stopped == 1
    gate.open.set()
    await parts.work()
    await stage.coordinate()
    assert await stage.status() is RunStatus.COMPLETED


@ONE
async def test_a_thread_that_ends_after_its_timeout_has_failed_all_the_same(
    stage: Stage, make_parts: Make
):
    let_go = threading.Event()

    def late(value: Any) -> Any:
        let_go.wait(PATIENCE)
        return value

    flow = chain_of(SyncNode("late", late, retry=ONCE))
    await stage.begin_run(flow)
    parts = make_parts(flow)
    await parts.read()
    parts.job().request_stop(Stop.TIMEOUT)
    let_go.set()
    await parts.idle()
    assert b"NodeTimeout" in (await stage.hash())["x:late"]


# What comes of an attempt.


class HalfMade(RetryAfter):
    """Forgets to call its base."""

    def __init__(self) -> None:
        Exception.__init__(self, "half made")


@ONE
async def test_an_exception_that_cannot_be_looked_at_fails_its_node(stage: Stage, make_parts: Make):
    async def fails(_: Any) -> None:
        raise HalfMade

    await run_first(stage, make_parts, chain_of(AsyncNode("fails", fails)))
    await stage.coordinate()
    assert await stage.status() is RunStatus.FAILED
    assert b"AttributeError" in (await stage.hash())["x:fails"]


@ONE
async def test_a_key_that_cannot_be_asked_for_fails_its_node_and_is_not_asked_for_again(
    stage: Stage, make_parts: Make
):
    def given(state: FlowState) -> int:
        number = state.input(int)
        if number == 1:
            state.has("\ud800")
        return number

    flow = chain_of(step("a", retry=ONCE).with_input(given))
    parts = make_parts(flow)
    for number in (1, 2):
        await stage.begin_run(flow, f"run-{number}", bytes([number]))
        await parts.work()
    assert b"UnicodeEncodeError" in (await stage.hash("run-1"))["x:a"]
    assert (await stage.hash("run-2"))["o:a"] == b"\x02"


@ONE
@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt])
async def test_an_input_function_that_raises_fails_its_node_and_no_more(
    stage: Stage, make_parts: Make, kind: type[BaseException]
):
    def broken(_: FlowState) -> Any:
        raise kind("of the input")

    flow = chain_of(step("one", retry=ONCE).with_input(broken))
    await run_first(stage, make_parts, flow)
    await stage.coordinate()
    assert await stage.status() is RunStatus.FAILED
    assert kind.__name__.encode() in (await stage.hash())["x:one"]


def _reads(state: FlowState) -> Any:
    return state.get("first", Any)  # type: ignore[type-var]


def _asks(state: FlowState) -> bool:
    return bool(_reads(state))


async def begin_second(stage: Stage, flow: Flow[Any, Any]) -> None:
    """A run whose first node was executed elsewhere; the second one is ready."""
    await stage.begin_run(flow)
    await stage.complete(OTHER, await stage.claim_one(OTHER))
    await stage.coordinate()


READERS = {
    "an input": chain_of(step("first"), step("second").with_input(_reads)),
    # A predicate runs as a node does; what it reads it reads in there.
    "a predicate": (
        builder("asks").then(step("first")).when(_asks).then(step("second")).end_when().build()
    ),
}


@ONE
@pytest.mark.parametrize("flow", READERS.values(), ids=READERS.keys())
async def test_what_cannot_be_read_now_costs_no_attempt(
    stage: Stage, make_parts: Make, monkeypatch: pytest.MonkeyPatch, flow: Flow[Any, Any]
):
    await begin_second(stage, flow)
    parts = make_parts(flow)

    def away(*_: Any) -> Any:
        raise StoreUnavailable("away")

    monkeypatch.setattr(parts.runner._readers._loop, "hmget", away)
    await parts.work()
    assert await stage.take(OTHER) == []  # not at once: what is away may stay so for a while
    await stage.make_due(stage.of("run"))
    assert await stage.release(stage.of("run")) == ["OK"]
    back = await stage.take_one(OTHER)
    assert (back.entry.seq, back.entry.attempt, back.entry.crashes) == (2, 1, 0)
    assert not [field for field in await stage.hash() if field.startswith("x:")]


@ONE
async def test_a_node_that_has_run_does_not_run_again_for_the_input_of_its_compensation(
    stage: Stage, make_parts: Make, monkeypatch: pytest.MonkeyPatch
):
    """That is read once the node has returned, and waited for where it cannot be read."""
    charged: list[Any] = []

    async def charge(value: Any) -> Any:
        charged.append(value)
        return value

    charging: AsyncNode[Any, Any] = AsyncNode("charge", charge)
    flow = chain_of(step("first"), charging.on_error(step("refund").with_input(_reads)))
    await begin_second(stage, flow)
    parts = make_parts(flow)
    read, tries = parts.runner._readers._loop.hmget, 0

    def away_twice(*arguments: Any) -> Any:
        nonlocal tries
        tries += bool(charged)
        if charged and tries <= 2:
            raise StoreUnavailable("away")
        return read(*arguments)

    monkeypatch.setattr(parts.runner._readers._loop, "hmget", away_twice)
    await parts.work()
    assert len(charged) == 1 and tries == 3
    await stage.coordinate()
    assert await stage.status() is RunStatus.COMPLETED


@ONE
async def test_a_classifier_s_verdict_counts_and_one_that_raises_fails_its_node(
    stage: Stage, make_parts: Make
):
    def fatal(_: BaseException) -> Verdict:
        return "fatal"

    def broken(_: BaseException) -> Verdict:
        raise LookupError("no verdict")

    async def fails(_: Any) -> Any:
        raise ValueError("boom")

    forgiven = Node[Any, Any]("forgiven", fails, retry=ONCE).best_effort()
    for classify, error in ((fatal, "ValueError"), (broken, "LookupError")):
        flow = chain_of(forgiven.with_classifier(classify), flow=classify.__name__)
        await stage.begin_run(flow, classify.__name__)
        parts = make_parts(flow)
        await parts.read()
        await parts.idle()
        await stage.coordinate()
        header = await stage.header(classify.__name__)
        kind = header.error.type if header.error else ""
        expected = (RunStatus.FAILED, error) if classify is fatal else (RunStatus.COMPLETED, "")
        assert (header.status, kind) == expected


@ONE
async def test_a_thread_that_waits_for_the_input_of_its_compensation_can_be_stopped(
    stage: Stage, make_parts: Make, monkeypatch: pytest.MonkeyPatch
):
    """Its task is not cancelled, as long as the function may run; by then it has returned."""
    charged: list[Any] = []
    asked = asyncio.Event()
    charging: SyncNode[Any, Any] = SyncNode("charge", charged.append)
    flow = chain_of(step("first"), charging.on_error(step("refund").with_input(_reads)))
    await begin_second(stage, flow)
    parts = make_parts(flow)
    read = parts.runner._readers._loop.hmget

    def away(*arguments: Any) -> Any:
        if not charged:
            return read(*arguments)
        asked.set()
        raise StoreUnavailable("away")

    monkeypatch.setattr(parts.runner._readers._loop, "hmget", away)
    await parts.read()
    await asked.wait()
    parts.job().request_stop(Stop.HAND_BACK)
    await parts.idle()
    assert (await stage.take_one(OTHER)).entry.attempt == 1


@ONE
async def test_a_node_whose_own_redis_is_away_has_failed(stage: Stage, make_parts: Make):
    """The error is the function's, though it has the name of ours."""

    async def calls(_: Any) -> Any:
        raise StoreUnavailable("another Redis is away")

    await run_first(stage, make_parts, chain_of(AsyncNode("calls", calls, retry=ONCE)))
    assert (await stage.header()).status is RunStatus.FAILING


@ONE
@pytest.mark.parametrize(
    ("field", "wrong"), [("pending", b"x"), ("n:1.0", b"another token")], ids=["pending", "token"]
)
async def test_a_run_whose_hash_takes_no_outcome_is_a_dead_letter_and_holds_no_slot(
    stage: Stage, make_parts: Make, field: str, wrong: bytes
):
    parts, gate = await run_held(stage, make_parts)
    key = stage.of("run").flow("run")
    right = (await stage.hash())[field]
    if field == "n:1.0":
        token = (await stage.hash())["token"]
        wrong = right.replace(token, token[:-1] + b"8")
    await stage.store.execute("HSET", key, field, wrong)
    gate.open.set()
    await parts.idle()
    (letter,) = await stage.store.execute("XRANGE", stage.of("run").dead, "-", "+")
    assert b"damaged run" in letter[1]
    assert parts.slots.free == parts.slots.size
    assert await stage.entries() == []
    await stage.store.execute("HSET", key, field, right)


@ONE
@pytest.mark.parametrize("field", ["rev", "n:1.0"])
async def test_a_damaged_run_does_not_keep_the_others_of_its_batch_from_running(
    stage: Stage, make_parts: Make, field: str
):
    flow = chain_of(step("echo", rate_limit="1000/s"))
    for run_id in ("one", "two"):
        await stage.begin_run(flow, run_id)
    key = stage.of("one").flow("one")
    kept = await stage.store.execute("HGET", key, field)
    token = str(await stage.store.execute("HGET", key, "token"), "ascii")
    entry_id = (await stage.entries("one"))[0][0]
    record = f"ready|{token}||1|0|{QUEUE}|{entry_id}||line:x:y|"
    await stage.store.execute("HSET", key, field, record if field == "n:1.0" else b"1-\xec")
    parts = make_parts(flow)
    await parts.work()
    await stage.store.execute("HSET", key, "rev", kept) if kept else None
    await stage.coordinate()
    assert await stage.status("two") is RunStatus.COMPLETED


@ONE
async def test_one_outcome_that_cannot_be_sent_does_not_keep_back_the_others(
    stage: Stage, make_parts: Make, monkeypatch: pytest.MonkeyPatch
):
    async def picky(store: Store, process: str, results: Any) -> list[str]:
        if any(result.output == b"\xa3bad" for result in results):
            raise ValueError("cannot be sent")
        return await nodes.complete(store, process, results)

    senders = ((nodes.Completion, picky), *committer._SENDERS[1:])
    monkeypatch.setattr(committer, "_SENDERS", senders)
    flow = chain_of(AsyncNode("echo", echo))
    values = {"one": "fine", "two": "bad", "three": "fine"}
    for run_id, value in values.items():
        await stage.begin_run(flow, run_id, msgspec.msgpack.encode(value))
    parts = make_parts(flow)
    await parts.work()
    await stage.coordinate()
    found = {run_id: await stage.status(run_id) for run_id in values}
    assert found == {
        "one": RunStatus.COMPLETED, "two": RunStatus.FAILED, "three": RunStatus.COMPLETED,
    }  # fmt: skip
    assert b"cannot be sent" in (await stage.hash("two"))["x:echo"]


# What is left behind.


@ONE
async def test_a_job_that_is_over_leaves_nothing_to_the_garbage_collector(
    stage: Stage, make_parts: Make
):
    """Else that takes as long as the jobs themselves: a third of a worker's time, measured."""
    flow = builder("two").then_parallel("step", PLAIN, FAILING).build()
    parts = make_parts(flow)
    gc.collect()
    gc.disable()
    try:
        for run_id in ("one", "two"):
            await stage.begin_run(flow, run_id)
        await parts.work()
        await stage.coordinate()
        await asyncio.sleep(0)
        left = [found for found in gc.get_objects() if isinstance(found, Job)]
    finally:
        gc.enable()
    assert await stage.status("two") is RunStatus.FAILED
    assert left == []
