"""FlowHooks: checked when they are made, and no part of the plan."""

from __future__ import annotations

from typing import Any, cast

import pytest

from resolute import FlowHooks, NodeEvent, NodeStatus
from tests.support.flows import builder, step


def heard(_: object) -> None: ...


def test_hooks_are_no_part_of_the_plan():
    plain = builder("f").then(step("a"))
    hooked = plain.with_hooks(FlowHooks(heard, after_node=heard, on_cost=heard)).build()
    assert hooked.plan_hash == plain.build().plan_hash
    assert hooked.hooks.before_node is heard


def test_what_cannot_be_called_is_refused_by_its_name():
    with pytest.raises(TypeError, match="after_node: expected a function, got 'x'"):
        FlowHooks(after_node=cast("Any", "x"))
    with pytest.raises(TypeError, match="with_hooks: expected FlowHooks"):
        builder("f").with_hooks(cast("Any", heard))


def test_the_key_of_an_event_is_that_of_all_attempts():
    def key(attempt: int) -> str:
        return NodeEvent("r", "f", "n", 3, 1, attempt, 0, NodeStatus.RUNNING).key

    assert key(1) == key(2) == "r/3.1"
