"""What the operations of a flow put under which output key, and of which type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from resolute.model.gates import GateResult
from resolute.model.operations import (
    Operation,
    Parallel,
    Then,
    ThenChildren,
    ThenEach,
    ThenGate,
    ThenLoop,
)


def outputs_of(operations: Iterable[Operation]) -> dict[str, Any]:
    """The types by output key; Any for a key that has another one on another path."""
    found: dict[str, Any] = {}
    for key, type_ in _pairs(operations):
        found[key] = type_ if found.get(key, type_) == type_ else Any
    return found


def each_type(each: ThenEach) -> Any:
    """The type of the list that a `then_each` puts out."""
    return _list_of(each.node.output_type, forgives=each.on_item_error == "continue")


def children_type(children: ThenChildren) -> Any:
    """The type of the list that a `then_children` puts out."""
    flow = children.flow
    result = Any if isinstance(flow, str) else flow.result_type
    return _list_of(result, forgives=children.on_child_error == "continue")


def _list_of(type_: Any, *, forgives: bool) -> Any:
    """The type of what a wide step returns; None stands for what failed."""
    if type_ is Any:
        return list
    return list[type_ | None] if forgives else list[type_]


def _pairs(operations: Iterable[Operation]) -> Iterator[tuple[str, Any]]:
    for operation in operations:
        match operation:
            case Then(node=node):
                yield node.key, node.output_type
            case Parallel(nodes=nodes):
                yield from ((node.key, node.output_type) for node in nodes)
            case ThenGate(name=name):
                yield name, GateResult
            case ThenEach(name=name):
                yield name, each_type(operation)
            case ThenChildren(name=name):
                yield name, children_type(operation)
            case ThenLoop(name=name, state=state, body=body):
                yield name, state
                yield from _pairs(body)
            case _:
                pass
