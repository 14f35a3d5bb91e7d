"""Windows: the rest of a flow, batch by batch, as the lists and loops that there are already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec

from resolute.model.fitting import fits, type_name
from resolute.model.nodes import AsyncNode, Node, same_of
from resolute.model.operations import (
    EndWhen,
    KeepLast,
    Operation,
    Parallel,
    Recall,
    SaveCursor,
    Then,
    ThenEach,
    ThenLoop,
    When,
)
from resolute.model.state import FlowState

TOGETHER = 100  # batches that are cut at a time
MOST_BATCHES = 10_000_000


class Window(msgspec.Struct, frozen=True):
    """The state of the loop: which batch is the next one, of how many."""

    at: int
    count: int


def unfold(operations: Sequence[Operation]) -> tuple[list[Operation], list[str]]:
    """The operations without windows, and what is wrong with those there were."""
    problems: list[str] = []
    places: list[int] = []
    depth = 0
    for place, operation in enumerate(operations):
        depth += isinstance(operation, When) - isinstance(operation, EndWhen)
        if isinstance(operation, Then) and operation.node.window is not None and not depth:
            places.append(place)
        else:
            problems += [_misplaced(node) for node in _nodes(operation) if node.window is not None]
    if len(places) > 1:
        problems.append("with_window() is there twice: the rest of a flow can be in one only")
    found = list(operations)
    for place in reversed(places):
        match found[place]:
            case Then(node=node):
                if not fits(node.output_type, list):
                    shown = type_name(node.output_type)
                    problems.append(
                        f"node {node.name!r}: with_window() needs a list, and it gives {shown}"
                    )
                found[place:] = _windowed(node, found[place + 1 :])
            case _:
                pass
    return found, problems


def _nodes(operation: Operation) -> Sequence[Node[Any, Any]]:
    match operation:
        case Then(node=node) | ThenEach(node=node):
            return [node]
        case Parallel(nodes=nodes):
            return nodes
        case ThenLoop(body=body):
            return [node for one in body for node in _nodes(one)]
        case _:
            return []


def _misplaced(node: Node[Any, Any]) -> str:
    return (
        f"node {node.name!r}: with_window() is for a node that is a step by itself, outside of"
        " when() and loops"
    )


def _windowed(node: Node[Any, Any], rest: Sequence[Operation]) -> list[Operation]:
    """Its list is cut into batches, and each is the node's output in a turn of a loop."""
    key, size, type_ = node.key, node.window or 1, node.output_type
    everything, batches, loop, last = (f"{key}.{what}" for what in ("all", "cut", "window", "last"))

    def cut(state: FlowState) -> list[Any]:
        items: list[Any] = state.get_or(
            everything, type_, list[Any]()
        )  # best effort, and it failed
        return [items[at : at + size] for at in range(0, len(items), size)] or [[]]

    def batch(state: FlowState) -> Any:
        return state.item(batches, state.get(loop, Window).at, type_)

    def after(_: FlowState, window: Window) -> Window:
        return Window(window.at + 1, window.count)

    def begin(state: FlowState) -> Window:
        return Window(0, state.count(batches))

    same = same_of(type_)
    current = AsyncNode[Any, Any](f"{key}.batch", same, batch, key)
    body: list[Operation] = [Then(current), *rest, KeepLast(last)]
    if node.cursor is not None:
        body.append(SaveCursor(replace(current, cursor=node.cursor)))
    return [
        Then(replace(node, output=everything, window=None, cursor=None)),
        ThenEach(batches, AsyncNode[Any, Any](batches, same), cut, TOGETHER, "fail_fast"),
        ThenLoop(
            loop, tuple(body), Window, begin,
            lambda window: window.at < window.count, None, after, MOST_BATCHES,
        ),
        Recall(last),
    ]  # fmt: skip
