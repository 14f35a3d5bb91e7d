"""Hooks on a worker: what they hear, when, and that nothing they do reaches the flow."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from resolute import (
    CostEvent,
    FlowHooks,
    NodeEvent,
    NodeStatus,
    RetryPolicy,
    current,
)
from resolute.model.flow import Flow
from resolute.model.nodes import AsyncNode, Node, SyncNode
from resolute.store.costs import read_costs
from resolute_worker.jobs import Stop
from tests.support.flows import builder, echo
from tests.support.stage import Stage
from tests.support.system import until
from tests.worker.parts import NAME, ONCE, ONE, OTHER, Gate, Make, Parts, held_by, run_first

Event = NodeEvent | CostEvent


def flow_of(hooks: FlowHooks, *nodes: Node[Any, Any]) -> Flow[Any, Any]:
    made = builder("hooked").with_hooks(hooks)
    for node in nodes:
        made = made.then(node)
    return made.build()


async def spend(_: Any) -> str:
    current().add_cost("0.25", model="large")
    current().add_cost(3, "tokens")
    return "done"


async def fail(_: Any) -> None:
    current().add_cost(1)
    raise LookupError("nothing there")


@ONE
async def test_an_attempt_that_completes_is_heard_before_and_after(stage: Stage, make_parts: Make):
    heard: list[Event] = []
    hooks = FlowHooks(heard.append, heard.append, heard.append)
    await run_first(stage, make_parts, flow_of(hooks, AsyncNode("spend", spend)))
    before, money, tokens, after = heard
    assert isinstance(before, NodeEvent)
    assert (before.status, before.key, before.node) == (NodeStatus.RUNNING, "run/1.0", "spend")
    assert isinstance(money, CostEvent)
    assert (money.number, str(money.amount), money.unit) == (1, "0.25", "usd")
    assert money.labels == {"model": "large"}
    assert isinstance(tokens, CostEvent)
    assert (tokens.number, tokens.unit, tokens.run_id) == (2, "tokens", "run")
    assert isinstance(after, NodeEvent)
    assert (after.status, after.error, after.flow) == (NodeStatus.COMPLETED, None, "hooked")
    assert before.begun is not None
    assert after.begun is not None
    assert after.ended is not None
    assert before.begun <= after.begun <= after.ended
    assert (await stage.hash())["cost:usd"] == b"250000"


@ONE
async def test_a_failed_attempt_is_heard_with_its_error_and_the_next(
    stage: Stage, make_parts: Make
):
    heard: list[NodeEvent] = []
    retry = RetryPolicy(initial_interval="2s", jitter=0, max_attempts=2)
    flow = flow_of(FlowHooks(after_node=heard.append), AsyncNode("fail", fail, retry=retry))
    await run_first(stage, make_parts, flow)
    (after,) = heard
    assert (after.status, after.attempt, after.retry_in) == (NodeStatus.FAILED, 1, 2.0)
    assert after.error is not None
    assert (after.error.type, after.error.message) == ("LookupError", "nothing there")
    assert await read_costs(stage.store, "run") == {"usd": 1}


@ONE
async def test_what_fails_before_its_function_is_called_is_heard_too(
    stage: Stage, make_parts: Make
):
    heard: list[NodeEvent] = []

    async def typed(value: int) -> None: ...

    node: Node[Any, Any] = AsyncNode("typed", typed, retry=ONCE)
    flow = flow_of(FlowHooks(heard.append, heard.append), node)
    await stage.begin_run(flow, data=msgspec.msgpack.encode("no number"))
    await make_parts(flow).work()
    (after,) = heard
    assert (after.status, after.begun) == (NodeStatus.FAILED, None)
    assert after.error is not None
    assert after.error.type == "ValidationError"


def done(_: Any) -> str:
    return "done"


def raises(_: object) -> None:
    raise ValueError("a hook fails")


def exits(_: object) -> None:
    raise SystemExit(3)


async def raises_later(_: object) -> None:
    raise KeyboardInterrupt


def answers_oddly(_: object) -> object:
    return object()


@ONE
@pytest.mark.parametrize("hook", [raises, exits, raises_later, answers_oddly])
async def test_what_a_hook_raises_changes_nothing(
    stage: Stage,
    make_parts: Make,
    caplog: pytest.LogCaptureFixture,
    hook: Callable[[object], object],
):
    node: Node[Any, Any] = SyncNode("spend", done)
    flow = flow_of(FlowHooks(hook, hook, hook), node)
    await run_first(stage, make_parts, flow)
    assert msgspec.msgpack.decode((await stage.hash())["o:spend"]) == "done"
    assert ("a hook of node spend failed" in caplog.text) == (hook is not answers_oddly)


async def hangs(_: object) -> None:
    await asyncio.Event().wait()


@ONE
async def test_a_hook_that_hangs_is_left_at_its_time_and_costs_no_timeout(
    stage: Stage, make_parts: Make, caplog: pytest.LogCaptureFixture
):
    """The timeout of the node, shorter than that of the hooks, begins after them."""
    node: Node[Any, Any] = AsyncNode("quick", echo, timeout="10ms", retry=ONCE)
    flow = flow_of(FlowHooks(hangs, hangs), node)
    await stage.begin_run(flow)
    parts = make_parts(flow)
    parts.runner.hooks.seconds = 0.1
    await parts.work()
    assert "o:quick" in await stage.hash()
    assert caplog.text.count("a hook of node quick failed") == 2


@ONE
async def test_a_hook_that_blocks_is_left_behind_in_its_thread(
    stage: Stage, make_parts: Make, caplog: pytest.LogCaptureFixture
):
    free = threading.Event()
    flow = flow_of(FlowHooks(lambda _: free.wait()), AsyncNode("quick", echo))
    await stage.begin_run(flow)
    parts = make_parts(flow)
    parts.runner.hooks.seconds = 0.05
    try:
        await parts.work()
    finally:
        free.set()
    assert "o:quick" in await stage.hash()
    assert "a hook of node quick blocks" in caplog.text


@ONE
async def test_a_run_that_is_cancelled_during_a_hook_does_not_begin_the_node(
    stage: Stage, make_parts: Make
):
    parts, gate, free, _ = await in_hook(stage, make_parts, "before")
    parts.job().request_stop(Stop.CANCEL)
    free.set()
    await parts.idle()
    assert gate.began == 0
    record = await stage.header()
    assert record.error is not None
    assert record.error.type == "Cancelled"


@ONE
async def test_an_outcome_is_not_changed_by_what_comes_while_its_hook_runs(
    stage: Stage, make_parts: Make
):
    parts, _, free, heard = await in_hook(stage, make_parts, "after")
    parts.job().request_stop(Stop.CANCEL)
    free.set()
    await parts.idle()
    assert "o:held" in await stage.hash()
    assert [event.status for event in heard] == [NodeStatus.COMPLETED]


@ONE
async def test_a_process_that_dies_between_the_hook_and_the_commit_is_heard_again(
    stage: Stage, make_parts: Make
):
    """Nothing is committed while the hook runs: whoever runs the node again calls it too."""
    parts, _, free, heard = await in_hook(stage, make_parts, "after")
    assert "o:held" not in await stage.hash()
    held = parts.job().held
    assert await stage.reclaim(held, NAME) == "OK"
    again = await stage.take_one(OTHER)
    assert (again.entry.attempt, again.entry.crashes) == (1, 1)
    free.set()
    await parts.idle()
    assert "o:held" not in await stage.hash(), "the fence refused it"
    parts.deliver(again)
    await parts.settle()
    await parts.idle()
    assert [event.crashes for event in heard] == [0, 1]


async def in_hook(
    stage: Stage, make_parts: Make, moment: str
) -> tuple[Parts, Gate, threading.Event, list[NodeEvent]]:
    """A process that calls a hook of its only node, which blocks until it is freed."""
    gate, free, called = Gate(), threading.Event(), threading.Event()
    heard: list[NodeEvent] = []
    gate.open.set()

    def hook(event: NodeEvent) -> None:
        heard.append(event)
        called.set()
        free.wait(10)

    hooks = FlowHooks(hook) if moment == "before" else FlowHooks(after_node=hook)
    flow = flow_of(hooks, held_by(gate))
    await stage.begin_run(flow)
    parts = make_parts(flow)
    await parts.read()
    await until(called.is_set, "the hook is called")
    return parts, gate, free, heard


@ONE
async def test_an_attempt_that_is_handed_back_keeps_what_it_spent(stage: Stage, make_parts: Make):
    begun = asyncio.Event()

    async def spend_and_wait(_: Any) -> None:
        current().add_cost(2)
        begun.set()
        await asyncio.Event().wait()

    heard: list[Event] = []
    flow = flow_of(FlowHooks(on_cost=heard.append), AsyncNode("long", spend_and_wait))
    await stage.begin_run(flow)
    parts = make_parts(flow)
    await parts.read()
    await begun.wait()
    parts.runner.stop_all(Stop.HAND_BACK)
    await parts.idle()
    assert await read_costs(stage.store, "run") == {"usd": 2}
    assert len(heard) == 1


@ONE
async def test_a_plain_function_spends_from_its_thread(stage: Stage, make_parts: Make):
    def add(_: Any) -> None:
        current().add_cost(1)

    flow = flow_of(FlowHooks(), SyncNode("add", add))
    await run_first(stage, make_parts, flow)
    assert await read_costs(stage.store, "run") == {"usd": 1}


def test_there_is_nothing_to_add_a_cost_to_outside_of_a_node():
    from resolute import NodeContext

    with pytest.raises(LookupError, match="no node is running here"):
        NodeContext("r", "f", "n", 1, 0, 1, 0).add_cost(1)
