"""Hooks and costs in the FlowTester: as on a worker, in virtual time."""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal
from typing import Any

import pytest

from resolute import (
    CostEvent,
    FlowEvent,
    FlowHooks,
    Node,
    NodeEvent,
    NodeStatus,
    RetryPolicy,
    RunStatus,
    StepEvent,
    current,
)
from resolute.model.nodes import AsyncNode, SyncNode
from resolute.testing import FlowTester, hooking
from tests.support.flows import builder, step


async def ask(_: Any) -> str:
    await asyncio.sleep(60)
    current().add_cost(0.1, model="large")
    if current().attempt == 1:
        raise ConnectionError("again")
    return "answer"


ASK: Node[Any, Any] = AsyncNode(
    "ask", ask, retry=RetryPolicy(initial_interval="1h", maximum_interval="1d")
)


def one(_: Any) -> int:
    return 1


def test_hooks_hear_every_attempt_with_virtual_times():
    heard: list[NodeEvent] = []
    spent: list[CostEvent] = []
    hooks = FlowHooks(heard.append, heard.append, spent.append)
    result = FlowTester().run(builder("f").with_hooks(hooks).then(ASK).build())
    assert result.costs == {"usd": Decimal("0.2")}
    assert [(e.status, e.attempt, e.begun, e.ended, e.retry_in) for e in heard] == [
        (NodeStatus.RUNNING, 1, 0.0, None, None),
        (NodeStatus.FAILED, 1, 0.0, 60.0, 3600.0),
        (NodeStatus.RUNNING, 2, 3660.0, None, None),
        (NodeStatus.COMPLETED, 2, 3660.0, 3720.0, None),
    ]
    assert [(e.attempt, e.number, e.labels) for e in spent] == [
        (1, 1, {"model": "large"}),
        (2, 1, {"model": "large"}),
    ]


def test_a_compensation_says_what_it_compensates():
    heard: list[str] = []
    hooks = FlowHooks(before_node=lambda event: heard.append(event.compensates))
    book = step("book").on_error(step("undo"))
    flow = builder("f").with_hooks(hooks).then(book).then(step("pay")).build()
    result = FlowTester().mock_error("pay", LookupError).run(flow)
    assert result.status is RunStatus.FAILED
    assert heard[0] == ""
    assert heard[-1] == "book"


def test_a_hook_that_blocks_is_left_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(hooking, "HOOK_SECONDS", 0.05)
    free = threading.Event()
    hooks = FlowHooks(before_node=lambda _: free.wait())
    quick: Node[Any, Any] = SyncNode("quick", one)
    flow = builder("f").with_hooks(hooks).then(quick).build()
    try:
        assert FlowTester().run(flow).output == 1
    finally:
        free.set()
    assert "a hook of node quick blocks" in caplog.text


def test_a_mock_may_spend_too():
    def mocked(_: Any) -> int:
        current().add_cost(3, "tokens")
        return 1

    result = FlowTester().mock(step("a"), mocked).run(builder("f").then(step("a")).build())
    assert result.costs == {"tokens": Decimal(3)}


def test_hooks_of_the_flow_hear_how_each_run_ends():
    heard: list[FlowEvent | StepEvent] = []
    hooks = FlowHooks(
        before_flow=heard.append, after_flow=heard.append,
        before_step=heard.append, after_step=heard.append,
    )  # fmt: skip
    made = builder("f").with_hooks(hooks).then(step("a").on_error(step("undo")))
    flow = made.then_gate("go", timeout="1h").build()

    def endings() -> list[tuple[RunStatus, str]]:
        found = [
            (one.status, one.error.type if one.error else "")
            for one in heard
            if isinstance(one, FlowEvent)
        ]
        steps = [(one.step, one.status) for one in heard if isinstance(one, StepEvent)]
        assert steps[:3] == [
            ("a", NodeStatus.RUNNING), ("a", NodeStatus.COMPLETED), ("go", NodeStatus.RUNNING)
        ]  # fmt: skip
        assert steps[3:] == [("go", NodeStatus.COMPLETED)] * (found[-1] == ("completed", ""))
        heard.clear()
        return found

    tester = FlowTester()
    assert tester.run(flow).status is RunStatus.FAILED
    assert endings() == [(RunStatus.RUNNING, ""), (RunStatus.FAILED, "GateTimeout")]
    tester.signal("go", {"approved": True})
    assert tester.run(flow).status is RunStatus.COMPLETED
    assert endings() == [(RunStatus.RUNNING, ""), (RunStatus.COMPLETED, "")]


def test_hooks_of_steps_are_told_in_each_turn_of_a_loop():
    heard: list[tuple[str, NodeStatus]] = []
    hooks = FlowHooks(
        before_step=lambda event: heard.append((event.step, event.status)),
        after_step=lambda event: heard.append((event.step, event.status)),
    )
    flow = (
        builder("f")
        .with_hooks(hooks)
        .then_loop(
            "twice", body=[step("a")], state=int, initial=0, while_=lambda n: n < 2,
            after=lambda _, n: n + 1,
        )
        .build()
    )  # fmt: skip
    assert FlowTester().run(flow).status is RunStatus.COMPLETED
    turn = [("a", NodeStatus.RUNNING), ("a", NodeStatus.COMPLETED)]
    around = [("twice", NodeStatus.RUNNING)], [("twice", NodeStatus.COMPLETED)]
    assert heard == [*around[0], *turn, *turn, *around[1]]
