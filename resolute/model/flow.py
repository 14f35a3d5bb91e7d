"""A built flow: the plan, and the user's functions bound to its instructions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

from resolute.model.codec import DEFAULT_MAX_PAYLOAD
from resolute.model.cursors import CursorBackend
from resolute.model.hooks import NO_HOOKS, FlowHooks
from resolute.model.nodes import Node
from resolute.model.plan import Loop, Plan, Wide
from resolute.model.state import FlowState

Moment = Literal["before_flow", "after_flow", "before_step", "after_step"]

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


@dataclass(frozen=True)
class Lister:
    """A function that says the items of a wide step; a node with a name of its own.

    Without one the items are what the step before returned. Each must be an `item_type`.
    """

    name: str
    fn: Callable[[FlowState], Iterable[Any]] | None
    item_type: Any = Any


@dataclass(frozen=True)
class Saver:
    """What a node of ours saves: `fn(state)` is the new value of `cursor`, None for none."""

    name: str
    fn: Callable[[FlowState], Any]
    cursor: str


@dataclass(frozen=True)
class Notice:
    """That a hook is to be told: of the run, or of its step `step`; a node with a name of its own.

    `ending` is what is told, as its compensation, when the run fails.
    """

    name: str
    moment: Moment
    step: str = ""
    ending: Notice | None = None


Question = Predicate | Until | Lister | Saver  # asked with the state; no node of the user's
Binding = Node[Any, Any] | Question | Notice


def compensation_of(binding: Binding) -> Node[Any, Any] | Notice | None:
    """What is bound as the compensation of a node."""
    match binding:
        case Node():
            return binding.compensation
        case Notice():
            return binding.ending
        case _:
            return None


@dataclass(frozen=True, eq=False, repr=False)
class Flow(Generic[I, O]):
    """What `FlowBuilder.build()` returns. `bindings` is by (instruction, index in its step)."""

    name: str
    plan: Plan
    plan_hash: str
    bindings: Mapping[tuple[int, int], Binding]
    input_type: Any = Any
    result_type: Any = Any
    max_payload: int = DEFAULT_MAX_PAYLOAD  # bytes of a value in Redis
    signals: Mapping[str, Any] = field(default_factory=dict[str, Any])  # the types declared
    queries: Mapping[str, Callable[[FlowState], Any]] = field(
        default_factory=dict[str, Callable[[FlowState], Any]]
    )
    namespace: str = ""  # of its cursors
    cursors: CursorBackend | None = None  # where they are; None: in Redis
    children: tuple[Flow[Any, Any], ...] = ()  # those that its steps start
    hooks: FlowHooks = NO_HOOKS

    def __repr__(self) -> str:
        return f"Flow({self.name!r})"

    def family(self) -> list[Flow[Any, Any]]:
        """This flow and all that its runs and their children start, each once."""
        found: list[Flow[Any, Any]] = [self]
        for flow in found:
            found += [child for child in flow.children if child not in found]
        return found

    def place(self, pc: int, index: int) -> tuple[int, int]:
        """Where in `bindings` the node is that runs at (pc, index): all items have one."""
        return (pc, 0 if pc in self._wide else index)

    @cached_property
    def _wide(self) -> frozenset[int]:
        return frozenset(
            pc for pc, one in enumerate(self.plan.instructions) if isinstance(one, Wide)
        )

    @cached_property
    def loops(self) -> Mapping[str, int]:
        """Where each loop's head is, by the loop's name."""
        heads = (
            (pc, one) for pc, one in enumerate(self.plan.instructions) if isinstance(one, Loop)
        )
        return {head.step.removesuffix(".while"): pc for pc, head in heads}

    @cached_property
    def lists(self) -> Mapping[str, Wide]:
        """The wide steps by their output key."""
        steps = (one for one in self.plan.instructions if isinstance(one, Wide))
        return {step.step: step for step in steps}
