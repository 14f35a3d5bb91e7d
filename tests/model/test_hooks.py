"""FlowHooks: checked when they are made, and no part of the plan."""

from __future__ import annotations

from typing import Any, cast

import pytest

from resolute import FlowHooks, NodeEvent, NodeStatus, StepEvent
from resolute.model.plan import Aside
from tests.support.flows import builder, step


def heard(_: object) -> None: ...


def test_hooks_of_nodes_are_no_part_of_the_plan():
    plain = builder("f").then(step("a"))
    hooked = plain.with_hooks(FlowHooks(heard, after_node=heard, on_cost=heard)).build()
    assert hooked.plan_hash == plain.build().plan_hash
    assert hooked.hooks.before_node is heard


def test_hooks_of_steps_and_of_the_flow_are_nodes_of_the_plan_beside_its_steps():
    plain = builder("f").then(step("a")).then_gate("ok")
    hooks = FlowHooks(after_flow=heard, before_step=heard)
    plan = plain.with_hooks(hooks).build().plan
    asides = {
        pc: one.nodes[0] for pc, one in enumerate(plan.instructions) if isinstance(one, Aside)
    }
    names = {pc: node.name for pc, node in asides.items()}
    assert names == {0: "before_flow", 1: "a.before_step", 3: "ok.before_step", 5: "after_flow"}
    assert all(node.best_effort for node in asides.values())
    undo = asides[0].compensation
    assert undo is not None
    assert undo.name == "after_flow"
    assert plan.predecessors(4) == [2]
    other = plain.with_hooks(FlowHooks(after_flow=print, before_step=print)).build().plan
    assert other.hash == plan.hash


def test_what_cannot_be_called_is_refused_by_its_name():
    with pytest.raises(TypeError, match="after_node: expected a function, got 'x'"):
        FlowHooks(after_node=cast("Any", "x"))
    with pytest.raises(TypeError, match="with_hooks: expected FlowHooks"):
        builder("f").with_hooks(cast("Any", heard))


def test_the_key_of_an_event_is_that_of_all_attempts():
    def key(attempt: int) -> str:
        return NodeEvent("r", "f", "n", 3, 1, attempt, 0, NodeStatus.RUNNING).key

    assert key(1) == key(2) == "r/3.1"
    assert StepEvent("r", "f", "s", 3, NodeStatus.RUNNING).key == "r/3.0"
