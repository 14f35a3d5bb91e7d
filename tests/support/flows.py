"""Small flows for tests that never run a user's function."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from resolute.model.builder import FlowBuilder
from resolute.model.flow import Flow
from resolute.model.nodes import AsyncNode, Node
from resolute.model.state import FlowState
from resolute.model.triggers import manual


async def echo(value: Any) -> Any:
    """What every node of these flows does."""
    return value


def step(name: str, **options: Any) -> Node[Any, Any]:
    """A node that gives back what it gets."""
    return AsyncNode(name, echo, **options)


def undoable(name: str) -> Node[Any, Any]:
    """A node with a compensation named ``undo-<name>``."""
    return step(name).on_error(step(f"undo-{name}"))


def always(_: FlowState) -> bool:
    """A predicate; the tests answer for it."""
    return True


def builder(name: str) -> FlowBuilder[Any, Any]:
    """A flow that is started by hand."""
    return FlowBuilder(name).triggered_by(manual())


def chain(*names: str, flow: str = "chain") -> Flow[Any, Any]:
    """One node after the other."""
    return chain_of(*map(step, names), flow=flow)


def chain_of(*nodes: Node[Any, Any], flow: str = "chain") -> Flow[Any, Any]:
    """One node after the other."""
    made = builder(flow)
    for node in nodes:
        made = made.then(node)
    return made.build()


def fan(width: int, *, flow: str = "fan", queues: Sequence[str] = ("",)) -> Flow[Any, Any]:
    """`width` nodes in parallel, spread over `queues` in turn, and one that gathers."""
    nodes = [step(f"n{i}", queue=queues[i % len(queues)] or None) for i in range(width)]
    return builder(flow).then_parallel("fan", *nodes).then(step("gather")).build()


def either(*, flow: str = "either") -> Flow[Any, Any]:
    """``first``, then ``yes`` or ``no``, then ``last``."""
    return (
        builder(flow)
        .then(step("first"))
        .when(always)
        .then(step("yes"))
        .otherwise(step("no"))
        .then(step("last"))
        .build()
    )
