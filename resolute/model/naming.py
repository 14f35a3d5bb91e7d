"""Nodes that another team's worker runs, as the flow that uses them sees them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from resolute.model.nodes import PREVIOUS, Node


def problems_of_named(node: Node[Any, Any]) -> Iterator[str]:
    """What a named node has that only the code of its flow could do."""
    if not node.is_named:
        return
    what = f"node {node.name!r} is run by another team's worker"
    if node.classify is not None:
        yield f"{what}: what its errors mean is said there, no with_classifier()"
    if any(limit.key is not None for limit in node.limits):
        yield f"{what}: its rate limit cannot have a key="
    if any(limit.key is not None for limit in node.concurrency_limits):
        yield f"{what}: its concurrency limit cannot have a key="
    undo = node.compensation
    if undo is not None and undo.is_named and undo.input is not PREVIOUS:
        yield (
            f"{what}, and so is its compensation {undo.name!r}: that gets the output of"
            f" {node.name!r}, no with_input()"
        )


def passing(name: str, source: Any) -> Node[Any, Any]:
    """A node of ours that puts out what `source`, the input of a named node, comes to."""

    async def same(value: msgspec.Raw) -> msgspec.Raw:
        return value

    return Node(name, same, source)
