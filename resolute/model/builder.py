"""FlowBuilder: how a flow is written. Immutable: every method returns a new builder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, cast, overload

from resolute.durations import Duration
from resolute.model.compiler import compile_flow
from resolute.model.flow import Flow
from resolute.model.gates import GateResult
from resolute.model.nodes import Node
from resolute.model.operations import (
    Draft,
    Else,
    EndWhen,
    Operation,
    Parallel,
    Then,
    ThenGate,
    ThenSleep,
    ThenSleepUntil,
    When,
)
from resolute.model.state import FlowState
from resolute.model.triggers import Trigger

I = TypeVar("I")  # noqa: E741 - the flow's input
O = TypeVar("O")  # noqa: E741 - the output of the step before
T = TypeVar("T")


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

    def then_gate(
        self, name: str, *, signal: str | None = None, timeout: Duration | None = None
    ) -> FlowBuilder[I, GateResult]:
        """Wait until somebody decides; the step's output is the decision, under `name`.

        The decision comes by `client.signal(id, signal, GateResult(...))`, `resolute signal`, or
        HTTP; `signal` is the gate's name unless given. One that was sent before the gate is reached
        counts. After `timeout` the run fails with GateTimeout and is compensated; without one it
        waits for ever. A run that waits costs nothing but its hash.
        """
        return self._add(ThenGate(name, name if signal is None else signal, timeout))

    def then_sleep(self, span: Duration, *, name: str = "") -> FlowBuilder[I, O]:
        """Wait for a time, by the clock of Redis, over every crash and restart.

        The next step's default input is the output of the step before.
        """
        return self._add(ThenSleep(name, span))

    def then_sleep_until(
        self,
        moment: Callable[[FlowState], datetime | timedelta | float | str],
        *,
        name: str = "",
    ) -> FlowBuilder[I, O]:
        """Wait until the moment that `moment(state)` says: a datetime with a time zone, or a span.

        It is asked once, on a worker; a moment that has passed is no wait.
        """
        return self._add(ThenSleepUntil(name, moment))

    def with_deadline(self, span: Duration) -> FlowBuilder[I, O]:
        """Fail a run with DeadlineExceeded that has not ended `span` after it began.

        Its nodes that run are cancelled and what completed is compensated, which is not limited.
        """
        return self._with(deadline=span)

    def with_signal(self, name: str, type_: Any = Any) -> FlowBuilder[I, O]:
        """Declare a signal and the type of its payload, which is checked when it is sent."""
        return self._with(signals={**self._draft.signals, name: type_})

    def build(self) -> Flow[I, O]:
        """The flow. Raises FlowDefinitionError naming everything that is wrong with it."""
        return cast("Flow[I, O]", compile_flow(self._draft))

    def _add(self, operation: Operation) -> FlowBuilder[Any, Any]:
        return self._with(operations=(*self._draft.operations, operation))

    def _with(self, **changes: Any) -> FlowBuilder[Any, Any]:
        builder: FlowBuilder[Any, Any] = object.__new__(type(self))
        builder._draft = replace(self._draft, **changes)
        return builder
