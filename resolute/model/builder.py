"""FlowBuilder: how a flow is written. Immutable: every method returns a new builder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast, overload

from resolute.durations import Duration
from resolute.model.compiler import (
    Else,
    EndWhen,
    Operation,
    Parallel,
    Then,
    When,
    compile_flow,
)
from resolute.model.flow import Flow
from resolute.model.nodes import Node
from resolute.model.state import FlowState
from resolute.model.triggers import Trigger

I = TypeVar("I")  # noqa: E741 - the flow's input
O = TypeVar("O")  # noqa: E741 - the output of the step before
T = TypeVar("T")


@dataclass(frozen=True)
class Draft:
    """What a builder has gathered so far."""

    name: str
    input_type: Any = Any
    operations: tuple[Operation, ...] = ()
    triggers: tuple[Trigger, ...] = ()
    queue: str = ""
    retention: tuple[Duration | None, int | None] | None = None


class FlowBuilder(Generic[I, O]):
    """Writes a flow step by step; `build()` checks it and compiles it.

    `FlowBuilder("name", input=T)` declares and checks the input; without `input=` it is anything.
    """

    __slots__ = ("_draft",)
    _draft: Draft

    @overload
    def __init__(self: FlowBuilder[Any, Any], name: str) -> None: ...
    @overload
    def __init__(self: FlowBuilder[T, T], name: str, *, input: type[T]) -> None: ...
    def __init__(self, name: str, *, input: Any = Any) -> None:
        self._draft = Draft(name, input)

    def triggered_by(self, trigger: Trigger) -> FlowBuilder[I, O]:
        """Add what starts the flow: `manual(...)` or `schedule(...)`. May be called again."""
        return self._with(triggers=(*self._draft.triggers, trigger))

    def on_queue(self, queue: str) -> FlowBuilder[I, O]:
        """Fix the queue of the flow's nodes; else it is that of the workers that offer it."""
        return self._with(queue=queue)

    def with_retention(
        self, after: Duration | None = None, *, keep_last: int | None = None
    ) -> FlowBuilder[I, O]:
        """Keep the flow's ended runs for `after`, and no more than the `keep_last` that ended last.

        Without `after` they are kept as long as those of any flow (`resolute-coord --retention`,
        24 h by default). A run that ended less than a minute ago is never one too many.
        """
        return self._with(retention=(after, keep_last))

    def then(self, node: Node[O, T]) -> FlowBuilder[I, T]:
        """Run one node."""
        return self._add(Then(node))

    def then_parallel(self, name: str, *nodes: Node[O, Any]) -> FlowBuilder[I, dict[str, Any]]:
        """Run nodes at the same time and go on when all are settled.

        The step's output is a dict by output key.
        """
        return self._add(Parallel(name, nodes))

    def when(self, predicate: Callable[[FlowState], bool]) -> FlowBuilder[I, O]:
        """Open a branch that is taken if `predicate(state)` is true; nest to any depth."""
        return self._add(When(predicate))

    def else_(self) -> FlowBuilder[I, Any]:
        """Begin the other arm of the innermost open branch."""
        return self._add(Else())

    def end_when(self) -> FlowBuilder[I, Any]:
        """Close the innermost open branch."""
        return self._add(EndWhen())

    def otherwise(self, node: Node[Any, Any]) -> FlowBuilder[I, Any]:
        """``.else_().then(node).end_when()``"""
        return self.else_().then(node).end_when()

    def otherwise_parallel(self, name: str, *nodes: Node[Any, Any]) -> FlowBuilder[I, Any]:
        """``.else_().then_parallel(name, *nodes).end_when()``"""
        return self.else_().then_parallel(name, *nodes).end_when()

    def build(self) -> Flow[I, O]:
        """The flow. Raises FlowDefinitionError naming everything that is wrong with it."""
        draft = self._draft
        return cast(
            "Flow[I, O]",
            compile_flow(
                draft.name,
                draft.input_type,
                draft.operations,
                draft.triggers,
                draft.queue,
                draft.retention,
            ),
        )

    def _add(self, operation: Operation) -> FlowBuilder[Any, Any]:
        return self._with(operations=(*self._draft.operations, operation))

    def _with(self, **changes: Any) -> FlowBuilder[Any, Any]:
        builder: FlowBuilder[Any, Any] = object.__new__(type(self))
        builder._draft = Draft(**{**_fields(self._draft), **changes})
        return builder


def _fields(draft: Draft) -> dict[str, Any]:
    return {name: getattr(draft, name) for name in Draft.__dataclass_fields__}
