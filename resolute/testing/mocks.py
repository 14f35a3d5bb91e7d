"""What a test puts in the place of node functions, and what these were called with."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from resolute.errors import FlowTesterError
from resolute.model.flow import Flow
from resolute.model.nodes import Node

Body = Callable[[Any], Any]
Named = str | Node[Any, Any]


def name_of(node: Named) -> str:
    return node.name if isinstance(node, Node) else node


def names_in(flows: Iterable[Flow[Any, Any]]) -> list[str]:
    """The names of the nodes, predicates and compensations of flows, in order."""
    found: dict[str, None] = {}
    for binding in (binding for flow in flows for binding in flow.bindings.values()):
        found[binding.name] = None
        if isinstance(binding, Node) and binding.compensation is not None:
            found[binding.compensation.name] = None
    return list(found)


class Mocks:
    """For each node that has one, what makes its body at the start of a run."""

    def __init__(self) -> None:
        self._makers: dict[str, Callable[[], Body]] = {}

    def add(self, node: Named, make: Callable[[], Body]) -> None:
        self._makers[name_of(node)] = make

    def bodies(self, flow: str, flows: Iterable[Flow[Any, Any]]) -> dict[str, Body]:
        """The bodies for a run of `flow`, and of the `flows` that it consists of.

        Raises FlowTesterError where they have no such node.
        """
        names = names_in(flows)
        for name in self._makers:
            check_known(name, names, flow)
        return {name: make() for name, make in self._makers.items()}


class Calls:
    """What the nodes of one run were called with: every attempt, in order."""

    def __init__(self, flow: str, flows: Iterable[Flow[Any, Any]]) -> None:
        self._flow = flow
        self._names = names_in(flows)
        self._inputs: dict[str, list[Any]] = defaultdict(list)

    def add(self, name: str, value: Any) -> None:
        self._inputs[name].append(value)

    def of(self, node: Named) -> list[Any]:
        """Raises FlowTesterError where the flow has no such node."""
        name = name_of(node)
        check_known(name, self._names, self._flow)
        return list(self._inputs[name])


def check_known(name: str, names: Sequence[str], flow: str) -> None:
    if name not in names:
        raise FlowTesterError(f"flow {flow!r} has no node {name!r}; it has {', '.join(names)}")


def calling(name: str, fn: Callable[..., Any]) -> Body:
    """`fn` as the body of node `name`: called with the input, or without where it takes none."""
    if not callable(fn):
        raise FlowTesterError(
            f"mock of {name!r}: expected a function, got {fn!r}; a value is for mock_value()"
        )
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError):  # one that is built in
        return fn
    if _takes(signature, 1):
        return fn
    if _takes(signature, 0):
        return lambda _: fn()
    raise FlowTesterError(f"mock of {name!r}: expected a function of one input or none, got {fn!r}")


def returning(value: Any) -> Body:
    return lambda _: value


def raising(error: BaseException | type[BaseException]) -> Body:
    def fail(_: Any) -> Any:
        raise error

    return fail


def in_turn(name: str, outcomes: Sequence[Any]) -> Body:
    """A body whose n-th call returns, or raises, the n-th of `outcomes`."""
    left: Iterator[Any] = iter(outcomes)

    def next_one(_: Any) -> Any:
        for outcome in left:
            if is_error(outcome):
                raise outcome
            return outcome
        raise FlowTesterError(
            f"mock_sequence of {name!r} has {len(outcomes)} outcome(s), and the node was called"
            " once more"
        )

    return next_one


def is_error(value: Any) -> bool:
    """Whether a value is there to be raised."""
    if isinstance(value, type):
        return issubclass(value, BaseException)
    return isinstance(value, BaseException)


def _takes(signature: inspect.Signature, count: int) -> bool:
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True
