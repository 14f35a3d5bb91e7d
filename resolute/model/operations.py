"""What a builder gathers: one operation for each call, compiled all together by `build()`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from resolute.durations import Duration
from resolute.model.codec import DEFAULT_MAX_PAYLOAD
from resolute.model.cursors import CursorBackend
from resolute.model.flow import Flow
from resolute.model.hooks import NO_HOOKS, FlowHooks
from resolute.model.nodes import Node
from resolute.model.state import FlowState
from resolute.model.triggers import Trigger
from resolute.priority import PriorityName


@dataclass(frozen=True)
class Then:
    node: Node[Any, Any]


@dataclass(frozen=True)
class Parallel:
    name: str
    nodes: tuple[Node[Any, Any], ...]


@dataclass(frozen=True)
class When:
    predicate: Callable[[FlowState], bool]


@dataclass(frozen=True)
class Else:
    pass


@dataclass(frozen=True)
class EndWhen:
    pass


@dataclass(frozen=True)
class ThenGate:
    name: str
    signal: str
    timeout: Duration | None


@dataclass(frozen=True)
class ThenSleep:
    name: str
    span: Duration


@dataclass(frozen=True)
class ThenSleepUntil:
    name: str
    moment: Callable[[FlowState], datetime | timedelta | float | str]


@dataclass(frozen=True)
class ThenEach:
    name: str
    node: Node[Any, Any]
    items: Callable[[FlowState], Iterable[Any]] | None
    max_concurrency: int | None
    on_item_error: str


@dataclass(frozen=True)
class ThenChildren:
    """Runs of another flow, which is known here or only by its name."""

    name: str
    flow: Flow[Any, Any] | str
    inputs: Callable[[FlowState], Iterable[Any]] | None
    max_concurrency: int | None
    on_child_error: str
    queue: str
    priority: PriorityName | None = None


@dataclass(frozen=True)
class ThenLoop:
    """A whole loop; the functions take and give its state."""

    name: str
    body: tuple[Operation, ...]
    state: Any
    initial: Any
    while_: Callable[[Any], bool]
    before: Callable[[FlowState, Any], Any] | None
    after: Callable[[FlowState, Any], Any] | None
    max_iterations: int


@dataclass(frozen=True)
class SaveCursor:
    """Save the cursor of a node that came before."""

    node: Node[Any, Any]


@dataclass(frozen=True)
class KeepLast:
    """Keep what the step before returned, under a key."""

    key: str


@dataclass(frozen=True)
class Recall:
    """Be a step that returns what was kept under a key."""

    key: str


Operation = (
    Then
    | Parallel
    | When
    | Else
    | EndWhen
    | ThenGate
    | ThenSleep
    | ThenSleepUntil
    | ThenEach
    | ThenChildren
    | ThenLoop
    | SaveCursor
    | KeepLast
    | Recall
)


class StepName(NamedTuple):
    """What the author calls a step, and under which key its output is found."""

    name: str
    key: str


def step_of(operation: Operation) -> StepName | None:
    """The step that an operation adds, as its author knows it; None where it adds none, or waits
    for nothing but time.
    """
    match operation:
        case Then(node=node):
            return StepName(node.name, node.key)
        case Parallel() | ThenGate() | ThenEach() | ThenChildren() | ThenLoop():
            return StepName(operation.name, operation.name)
        case _:
            return None


@dataclass(frozen=True)
class Draft:
    """A flow as far as it is written."""

    name: str
    input_type: Any = Any
    operations: tuple[Operation, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    queue: str = ""
    retention: tuple[Duration | None, int | None] | None = None
    deadline: Duration | None = None
    namespace: str | None = None
    cursors: CursorBackend | None = None
    queries: Mapping[str, Callable[[FlowState], Any]] = field(
        default_factory=dict[str, Callable[[FlowState], Any]]
    )
    signals: Mapping[str, Any] = field(default_factory=dict[str, Any])
    max_payload: int = DEFAULT_MAX_PAYLOAD
    hooks: FlowHooks = NO_HOOKS
