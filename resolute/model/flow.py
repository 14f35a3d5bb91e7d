"""A built flow: the plan, and the user's functions bound to its instructions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from resolute.model.nodes import Node
from resolute.model.plan import Plan
from resolute.model.state import FlowState

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741


@dataclass(frozen=True)
class Predicate:
    """A function that decides a branch; a node of the plan with a name of its own."""

    name: str
    fn: Callable[[FlowState], bool]


@dataclass(frozen=True)
class Until:
    """A function that says until when a sleep lasts, or how long; a node with a name of its own."""

    name: str
    fn: Callable[[FlowState], datetime | timedelta | float | str]


Question = Predicate | Until  # asked with the state; the answer goes to the coordinator
Binding = Node[Any, Any] | Question


@dataclass(frozen=True, eq=False)
class Flow(Generic[I, O]):
    """What `FlowBuilder.build()` returns. `bindings` is by (instruction, index in its step)."""

    name: str
    plan: Plan
    plan_hash: str
    bindings: Mapping[tuple[int, int], Binding]
    input_type: Any = Any
    result_type: Any = Any
    max_payload: int = 1024 * 1024
    signals: Mapping[str, Any] = field(default_factory=dict[str, Any])  # the types declared
