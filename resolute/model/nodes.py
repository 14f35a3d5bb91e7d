"""Nodes: a user's function with its name, types and policies. Immutable; still callable."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Protocol,
    Self,
    TypeVar,
    cast,
    overload,
    runtime_checkable,
)

from resolute.durations import Duration, milliseconds
from resolute.ids import check_name, check_queue
from resolute.model.classifying import Classifier
from resolute.model.cursors import CursorTarget
from resolute.model.functions import (
    check_count,
    check_plain,
    hints_of,
    is_coroutine_function,
    positional_parameters,
)
from resolute.model.policies import (
    ConcurrencyLimit,
    ConcurrencyLimits,
    Limit,
    Limits,
    RetryPolicy,
    as_concurrency,
    as_limits,
)
from resolute.priority import PriorityName, check_priority

if TYPE_CHECKING:
    from resolute.model.state import FlowState

I_contra = TypeVar("I_contra", contravariant=True)
O_co = TypeVar("O_co", covariant=True)
I = TypeVar("I")  # noqa: E741 - the input, as O is the output
O = TypeVar("O")  # noqa: E741

R = TypeVar("R")

DEFAULT_TIMEOUT = "5m"


class _PreviousOutput:
    """The default input: the flow's input for the first step, later the step before."""

    def __repr__(self) -> str:
        return "PREVIOUS"


PREVIOUS = _PreviousOutput()


@runtime_checkable
class DeclaresTypes(Protocol):
    """A function that says itself what it takes and returns."""

    @property
    def takes(self) -> Any: ...

    @property
    def returns(self) -> Any: ...


@dataclass(frozen=True)
class Elsewhere:
    """Stands for the function of a node that another team's worker runs."""

    name: str
    returns: Any = field(compare=False)
    takes: Any = field(default=Any, compare=False)

    def __call__(self, value: Any) -> Any:
        raise TypeError(f"node {self.name!r} is run by another team's worker: its code is not here")


@dataclass(frozen=True, eq=False, repr=False)
class Node(Generic[I_contra, O_co]):
    """A named function of one input, or none. Every method returns a new node.

    Made by `@node(...)` or `Node(name, fn, input)`. Durations are seconds or texts like "2m".
    """

    name: str
    fn: Callable[..., Any]
    input: Any = PREVIOUS
    output: str | None = None
    timeout: Duration = DEFAULT_TIMEOUT
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    rate_limit: Limits = None
    queue: str | None = None
    compensation: Node[Any, Any] | None = None
    is_best_effort: bool = False
    classify: Classifier | None = None
    cursor: CursorTarget | None = None
    window: int | None = None
    concurrency: ConcurrencyLimits = None
    priority: PriorityName | None = None
    heartbeat: Duration | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def __call__(self, *args: Any) -> Any:
        """Call the function itself, as in a unit test; a coroutine function's is to be awaited."""
        return self.fn(*args)

    def __post_init__(self) -> None:
        check_name("node", self.name)
        self._check_kinds()
        if self.output is not None:
            check_name("output key", self.output)
        if self.queue is not None:
            check_queue(self.queue)
        if milliseconds(self.timeout) < 1:
            raise ValueError(
                f"node {self.name!r}: expected a timeout above 0, got {self.timeout!r}"
            )
        if self.heartbeat is not None and milliseconds(self.heartbeat) < 1:
            raise ValueError(
                f"node {self.name!r}: expected a heartbeat above 0, got {self.heartbeat!r}"
            )
        if len(positional_parameters(self.fn)) > 1:
            raise TypeError(f"node {self.name!r}: expected a function of one input or none")
        if callable(self.input):
            check_plain(f"node {self.name!r}: with_input", self.input, "FlowState")
        if self.classify is not None:
            check_plain(f"node {self.name!r}: classify", self.classify)
        as_limits(self.rate_limit)
        as_concurrency(self.concurrency)
        if self.priority is not None:
            try:
                check_priority(self.priority)
            except ValueError as error:
                raise ValueError(f"node {self.name!r}: {error}") from None

    def _check_kinds(self) -> None:
        """Raises TypeError for what only a caller without a type checker gives."""
        what, fn, source = f"node {self.name!r}", cast("object", self.fn), self.input
        if not callable(fn) or isinstance(fn, Node):
            raise TypeError(f"{what}: expected a function, got {fn!r}")
        if isinstance(source, Node):
            raise TypeError(
                f"{what}: with_input: expected a value or a function of FlowState, got {source!r}:"
                f" use lambda state: state[...]"
            )
        if not isinstance(cast("object", self.retry), RetryPolicy):
            raise TypeError(f"{what}: retry: expected a RetryPolicy, got {self.retry!r}")
        undo = cast("object", self.compensation)
        if undo is not None:
            as_node(f"{what}: on_error", undo)
        if self.window is not None:
            check_count(f"{what}: window", self.window)

    @overload
    @staticmethod
    def named(
        name: str, *, returns: type[R], input: Any = ..., queue: str | None = ...
    ) -> Node[Any, R]: ...
    @overload
    @staticmethod
    def named(name: str, *, input: Any = ..., queue: str | None = ...) -> Node[Any, Any]: ...
    @staticmethod
    def named(
        name: str, *, returns: Any = Any, input: Any = PREVIOUS, queue: str | None = None
    ) -> Node[Any, Any]:
        """A node that another team's worker runs: one of `queue` that offers the name.

        That worker needs no code of this flow: `Worker(queue).with_nodes(...)`. What it makes must
        be a `returns`. Timeout, retries, limits and compensation are those given here, by
        `with_timeout` and so on; an `input` that is a function, or has markers, is computed here.
        """
        return Node(name, Elsewhere(name, returns), input, queue=queue)

    @property
    def is_named(self) -> bool:
        """Whether another team's worker runs it."""
        return isinstance(self.fn, Elsewhere)

    @property
    def key(self) -> str:
        """The output key: where the output is found in the state."""
        return self.output or self.name

    @property
    def is_async(self) -> bool:
        return is_coroutine_function(self.fn)

    @property
    def takes_input(self) -> bool:
        return bool(positional_parameters(self.fn))

    @property
    def input_type(self) -> Any:
        """The annotation of the parameter, or Any."""
        if isinstance(self.fn, DeclaresTypes):
            return self.fn.takes
        names = positional_parameters(self.fn)
        return hints_of(self.fn).get(names[0], Any) if names else Any

    @property
    def output_type(self) -> Any:
        """The annotation of the result, or Any."""
        if isinstance(self.fn, DeclaresTypes):
            return self.fn.returns
        return hints_of(self.fn).get("return", Any)

    @property
    def limits(self) -> tuple[Limit, ...]:
        return as_limits(self.rate_limit)

    @property
    def concurrency_limits(self) -> tuple[ConcurrencyLimit, ...]:
        return as_concurrency(self.concurrency)

    def as_(self, key: str) -> Self:
        """The same node with its output under another key."""
        return replace(self, output=key)

    @overload
    def with_input(self, source: Callable[[FlowState], Any]) -> Node[Any, O_co]: ...
    @overload
    def with_input(self, source: Any) -> Node[Any, O_co]: ...
    def with_input(self, source: Any) -> Node[Any, O_co]:
        """Take the input from `source`: a value, or a function of the FlowState.

        In a value, `output(path)` and `input_data(path)` stand for what only the run has.
        """
        return cast("Node[Any, O_co]", replace(self, input=source))

    def with_timeout(self, timeout: Duration) -> Self:
        return replace(self, timeout=timeout)

    def with_heartbeat(self, heartbeat: Duration) -> Self:
        """Let an attempt fail that does not call `current().heartbeat()` this often."""
        return replace(self, heartbeat=heartbeat)

    def with_retry(self, retry: RetryPolicy) -> Self:
        return replace(self, retry=retry)

    def with_rate_limit(self, limit: Limits) -> Self:
        return replace(self, rate_limit=limit)

    def with_concurrency(self, limit: ConcurrencyLimits) -> Self:
        return replace(self, concurrency=limit)

    def with_priority(self, priority: PriorityName) -> Self:
        """Let it be taken from its queue before those of lower priority: "high", "normal", "low".

        Without this it has the priority of the run. None is starved; see docs/priorities.md.
        """
        return replace(self, priority=priority)

    def with_classifier(self, classify: Classifier) -> Self:
        """Let `classify(error)` say what an error means; see `Verdict`."""
        return replace(self, classify=classify)

    def on_queue(self, queue: str) -> Self:
        return replace(self, queue=queue)

    def on_error(self, compensation: Node[Any, Any]) -> Self:
        """Run `compensation` if the flow fails after this node completed.

        Without a `with_input` of its own it gets the output of this node.
        """
        return replace(self, compensation=compensation)

    def with_cursor(self, name: str, path: str = "") -> Self:
        """When the node's step is done, save what its output has at `path` as the cursor `name`.

        The path is of fields, keys and indices with dots; without one it is the whole output. None
        saves nothing. The next run reads it with `state.cursor(name)`.
        """
        return replace(self, cursor=CursorTarget(check_name("cursor", name), path))

    def with_window(self, size: int) -> Self:
        """Let the rest of the flow run for at most `size` items of this node's list at a time.

        One batch after the other: what follows sees the batch as this node's output, and a cursor
        is saved when the rest is done for it. The flow's result is that of the last batch; a list
        without items is one batch without items.
        """
        return replace(self, window=size)

    def best_effort(self) -> Node[I_contra, O_co | None]:
        """Let the step go on when this node fails for good: what follows is then given None.

        In a parallel step it is left out of the outputs.
        """
        return cast("Node[I_contra, O_co | None]", replace(self, is_best_effort=True))


class AsyncNode(Node[I_contra, O_co]):
    """A node whose function is a coroutine function; it runs on the loop."""

    def __call__(self, *args: Any) -> Awaitable[O_co]:
        return self.fn(*args)


class SyncNode(Node[I_contra, O_co]):
    """A node whose function is a plain one; it runs in a thread."""

    def __call__(self, *args: Any) -> O_co:
        return self.fn(*args)


def as_node(what: str, node: object) -> Node[Any, Any]:
    """`node` if it is one. Raises TypeError."""
    if isinstance(node, Node):
        return cast("Node[Any, Any]", node)
    hint = ": make it a node with @node(name)" if inspect.isroutine(node) else ""
    raise TypeError(f"{what}: expected a node, got {node!r}{hint}")


class _Decorator:
    """What `@node(...)` returns: keeps the function's types."""

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        self._name = name
        self._options = options

    # A coroutine function is also a function that returns something: the first overload wins.
    @overload
    def __call__(  # pyright: ignore[reportOverlappingOverload]
        self, fn: Callable[[], Awaitable[O]], /
    ) -> AsyncNode[Any, O]: ...
    @overload
    def __call__(self, fn: Callable[[I], Awaitable[O]], /) -> AsyncNode[I, O]: ...
    @overload
    def __call__(self, fn: Callable[[], O], /) -> SyncNode[Any, O]: ...
    @overload
    def __call__(self, fn: Callable[[I], O], /) -> SyncNode[I, O]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Node[Any, Any]:
        if is_coroutine_function(fn):
            return AsyncNode[Any, Any](self._name, fn, **self._options)
        return SyncNode[Any, Any](self._name, fn, **self._options)


def node(
    name: str,
    *,
    output: str | None = None,
    timeout: Duration = DEFAULT_TIMEOUT,
    retry: RetryPolicy | None = None,
    rate_limit: Limits = None,
    queue: str | None = None,
    classify: Classifier | None = None,
    concurrency: ConcurrencyLimits = None,
    priority: PriorityName | None = None,
    heartbeat: Duration | None = None,
) -> _Decorator:
    """Make a function a node.

    `output` is the key of its output in the state (default: the name). `timeout` is for one
    attempt. `rate_limit` is ``"50/1m"``, a RateLimit, a SharedRateLimit or a tuple of them.
    `queue` names the workers that run it (default: the flow's own). `classify` says of an error
    whether it is worth another attempt, such as `http_classifier`. `concurrency` is how many may
    run at one time: a ConcurrencyLimit or a tuple of them. `priority` is "high", "normal" or "low":
    which of the nodes that wait in a queue are taken first (default: that of the run).
    `heartbeat` is how often an attempt must call `current().heartbeat()`: one that is silent for so
    long fails with HeartbeatTimeout, long before a generous `timeout` would say so.
    """
    if not isinstance(cast("object", name), str):
        raise TypeError(f'expected @node(name), such as @node("fetch"), got @node({name!r})')
    options: dict[str, Any] = {
        "output": output,
        "timeout": timeout,
        "retry": RetryPolicy() if retry is None else retry,
        "rate_limit": rate_limit,
        "queue": queue,
        "classify": classify,
        "concurrency": concurrency,
        "priority": priority,
        "heartbeat": heartbeat,
    }
    return _Decorator(name, options)


def same_of(type_: Any) -> Callable[[Any], Any]:
    """A coroutine function that returns what it is given, a `type_`."""

    async def same(value: Any) -> Any:
        return value

    same.__annotations__ = {"value": type_, "return": type_}
    return same
