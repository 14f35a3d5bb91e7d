"""FlowBuilder: how a flow is written. Immutable: every method returns a new builder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, TypeVar, cast, overload

from resolute.durations import Duration
from resolute.model import codec
from resolute.model.compiler import compile_flow
from resolute.model.cursors import CursorBackend
from resolute.model.flow import Flow
from resolute.model.gates import GateResult
from resolute.model.hooks import FlowHooks
from resolute.model.nodes import Node, as_node
from resolute.model.operations import (
    Draft,
    Else,
    EndWhen,
    Operation,
    Parallel,
    Then,
    ThenChildren,
    ThenEach,
    ThenGate,
    ThenLoop,
    ThenSleep,
    ThenSleepUntil,
    When,
)
from resolute.model.state import FlowState
from resolute.model.triggers import Trigger
from resolute.priority import PriorityName

I = TypeVar("I")  # noqa: E741 - the flow's input
O = TypeVar("O")  # noqa: E741 - the output of the step before
T = TypeVar("T")
E = TypeVar("E")


Body = Callable[["FlowBuilder[Any, Any]"], "FlowBuilder[Any, Any]"]


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
        codec.check_type(f"flow {name!r}: input", input)
        self._draft = Draft(name, input)

    def __repr__(self) -> str:
        return f"FlowBuilder({self._draft.name!r})"

    def triggered_by(self, trigger: Trigger) -> FlowBuilder[I, O]:
        """Add what starts the flow: `manual`, `schedule`, `webhook` or `signal`; again for more."""
        if not isinstance(cast("object", trigger), Trigger):
            raise TypeError(
                "triggered_by: expected a trigger such as manual() or"
                f' schedule("0 4 * * *"), got {trigger!r}'
            )
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
        return self._add(Then(as_node("then", node)))

    def then_parallel(self, name: str, *nodes: Node[O, Any]) -> FlowBuilder[I, dict[str, Any]]:
        """Run nodes at the same time and go on when all are settled.

        The step's output is a dict by output key.
        """
        what = f"then_parallel {name!r}"
        return self._add(Parallel(name, tuple(as_node(what, node) for node in nodes)))

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

    @overload
    def then_each(
        self, name: str, node: Node[T, E], *,
        items: Callable[[FlowState], Iterable[T]] | None = None,
        max_concurrency: int | None = None,
        on_item_error: Literal["fail_fast"] = "fail_fast",
    ) -> FlowBuilder[I, list[E]]: ...  # fmt: skip
    @overload
    def then_each(
        self, name: str, node: Node[T, E], *,
        items: Callable[[FlowState], Iterable[T]] | None = None,
        max_concurrency: int | None = None,
        on_item_error: Literal["continue"],
    ) -> FlowBuilder[I, list[E | None]]: ...  # fmt: skip
    def then_each(
        self,
        name: str,
        node: Node[T, E],
        *,
        items: Callable[[FlowState], Iterable[T]] | None = None,
        max_concurrency: int | None = None,
        on_item_error: Literal["continue", "fail_fast"] = "fail_fast",
    ) -> FlowBuilder[I, Any]:
        """Run `node` for each item of a list that is known only when the step is reached.

        `items(state)` says them, on a worker, or a marker such as `output("fetch.issues")` does;
        without it they are what the step before returned.
        Retries, limits and compensation are those of the node, for each item by itself. No more
        than `max_concurrency` run at a time. The output, under `name`, is the list of outputs in
        the order of the items. An item that fails for good fails the step; with "continue" it
        does not, and is None in the list.
        """
        as_node(f"then_each {name!r}", node)
        return self._add(ThenEach(name, node, items, max_concurrency, on_item_error))

    @overload
    def then_children(
        self, name: str, *, flow: Flow[T, E],
        inputs: Callable[[FlowState], Iterable[T]] | None = None,
        sequential: bool = False,
        max_concurrency: int | None = None,
        on_child_error: Literal["fail_fast"] = "fail_fast",
        queue: str = "",
        priority: PriorityName | None = None,
    ) -> FlowBuilder[I, list[E]]: ...  # fmt: skip
    @overload
    def then_children(
        self, name: str, *, flow: Flow[T, E],
        inputs: Callable[[FlowState], Iterable[T]] | None = None,
        sequential: bool = False,
        max_concurrency: int | None = None,
        on_child_error: Literal["continue"],
        queue: str = "",
        priority: PriorityName | None = None,
    ) -> FlowBuilder[I, list[E | None]]: ...  # fmt: skip
    @overload
    def then_children(
        self, name: str, *, flow: str,
        inputs: Callable[[FlowState], Iterable[Any]] | None = None,
        sequential: bool = False,
        max_concurrency: int | None = None,
        on_child_error: Literal["continue", "fail_fast"] = "fail_fast",
        queue: str = "",
        priority: PriorityName | None = None,
    ) -> FlowBuilder[I, list[Any]]: ...  # fmt: skip
    def then_children(
        self,
        name: str,
        *,
        flow: Flow[Any, Any] | str,
        inputs: Callable[[FlowState], Iterable[Any]] | None = None,
        sequential: bool = False,
        max_concurrency: int | None = None,
        on_child_error: Literal["continue", "fail_fast"] = "fail_fast",
        queue: str = "",
        priority: PriorityName | None = None,
    ) -> FlowBuilder[I, Any]:
        """Start a run of `flow` for each input, and go on when all have ended.

        `inputs(state)` says the inputs, on a worker; without it they are the list that the step
        before returned. No more than `max_concurrency` run at a time; `sequential` is one at a
        time. The output, under `name`, is the list of what they returned, in order;
        `state.children(name)` has their ids, which are ``<id>/<name>.<n>``, and their errors.

        A child that fails fails the step, and the other children are cancelled; with "continue" it
        does not, and is None in the list. Cancelling, failing or terminating the run reaches the
        children that have not ended. What a child that completed has done is not undone.

        `flow` may be the name of one that another team's workers offer, on `queue`; without one the
        children run on the queue of their flow, else on that of this run. `priority` is that of the
        children; without it, that of this run.
        """
        if not isinstance(cast("object", flow), Flow | str):
            hint = ": call its build()" if isinstance(flow, FlowBuilder) else ""
            raise TypeError(
                f"then_children {name!r}: expected a flow or the name of one, got {flow!r}{hint}"
            )
        if sequential and max_concurrency not in (None, 1):
            raise ValueError(
                f"then_children {name!r}: expected sequential or a max_concurrency, got both"
            )
        most = 1 if sequential else max_concurrency
        return self._add(ThenChildren(name, flow, inputs, most, on_child_error, queue, priority))

    def then_loop(
        self,
        name: str,
        *,
        body: Node[Any, Any] | Sequence[Node[Any, Any]] | Body,
        state: type[T],
        initial: T | Callable[[FlowState], T],
        while_: Callable[[T], bool],
        before: Callable[[FlowState, T], T] | None = None,
        after: Callable[[FlowState, T], T] | None = None,
        max_iterations: int = 1000,
    ) -> FlowBuilder[I, T]:
        """Run the steps of `body` again and again as long as `while_(loop state)` is true.

        The loop's state is typed, and the output under `name`: it begins as `initial`, and `before`
        and `after` change it at the start and the end of each turn. The default input of the body's
        first step is that state. In the body an output is that of the latest turn;
        `state.turn(name)` counts turns from 1. `body` is a node, several, or a function that adds
        steps to the builder it is given. More than `max_iterations` turns fail the run with
        LoopLimitExceeded.
        """
        return self._add(
            ThenLoop(
                name,
                self._steps_of(name, body),
                state,
                initial,
                while_,
                before,
                after,
                max_iterations,
            )
        )

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

    def with_max_payload(self, size: int) -> FlowBuilder[I, O]:
        """Let an input or output have `size` bytes, encoded, in Redis; by default 1 MiB.

        What is larger goes to the storage, where there is one; else it is PayloadTooLarge.
        """
        return self._with(max_payload=size)

    def with_signal(self, name: str, type_: Any = Any) -> FlowBuilder[I, O]:
        """Declare a signal and the type of its payload, which is checked when it is sent."""
        codec.check_type(f"signal {name!r}", type_)
        return self._with(signals={**self._draft.signals, name: type_})

    def with_state(
        self, backend: CursorBackend | None = None, *, namespace: str | None = None
    ) -> FlowBuilder[I, O]:
        """Keep the cursors of the flow in `backend`, by default in Redis, and under `namespace`.

        That is the flow's name unless it is said, to share them. Raises TypeError.
        """
        for name in ("load", "save") if backend is not None else ():
            if not callable(getattr(backend, name, None)):
                raise TypeError(f"with_state: expected a backend with {name}(), got {backend!r}")
        return self._with(cursors=backend, namespace=namespace)

    def with_query(self, name: str, fn: Callable[[FlowState], Any]) -> FlowBuilder[I, O]:
        """Declare a question that `run.query(name)` asks of a run: `fn(state)` answers it.

        It is called on a worker, in a thread, and must change nothing.
        Runs that have ended answer too, as long as they are kept.
        """
        return self._with(queries={**self._draft.queries, name: fn})

    def with_hooks(self, hooks: FlowHooks) -> FlowBuilder[I, O]:
        """Call functions on the worker: before and after attempts, steps and runs, and for costs.

        Which ones is no part of the plan: a flow with other ones is the same version. Those of
        steps and of the flow have nodes of their own in it. Raises TypeError.
        """
        if not isinstance(cast("object", hooks), FlowHooks):
            raise TypeError(f"with_hooks: expected FlowHooks, got {hooks!r}")
        return self._with(hooks=hooks)

    def build(self) -> Flow[I, O]:
        """The flow. Raises FlowDefinitionError naming everything that is wrong with it."""
        return cast("Flow[I, O]", compile_flow(self._draft))

    @staticmethod
    def _steps_of(
        name: str, body: Node[Any, Any] | Sequence[Node[Any, Any]] | Body
    ) -> tuple[Operation, ...]:
        what = f"loop {name!r}: body"
        if isinstance(body, Node):
            return (Then(cast("Node[Any, Any]", body)),)
        if callable(body):
            made = cast("object", body(FlowBuilder(name)))
            if not isinstance(made, FlowBuilder):
                raise TypeError(f"{what}: expected it to return the builder, got {made!r}")
            return cast("FlowBuilder[Any, Any]", made)._draft.operations
        if not isinstance(cast("object", body), Sequence) or isinstance(body, str):
            raise TypeError(f"{what}: expected a node, several or a function, got {body!r}")
        return tuple(Then(as_node(what, node)) for node in body)

    def _add(self, operation: Operation) -> FlowBuilder[Any, Any]:
        return self._with(operations=(*self._draft.operations, operation))

    def _with(self, **changes: Any) -> FlowBuilder[Any, Any]:
        builder: FlowBuilder[Any, Any] = object.__new__(type(self))
        builder._draft = replace(self._draft, **changes)
        return builder
