"""What saves a cursor when the step of its node is done."""

from __future__ import annotations

from typing import Any

from resolute.model.cursors import CursorTarget
from resolute.model.flow import Saver
from resolute.model.nodes import Node
from resolute.model.paths import NoItems, type_at, value_at
from resolute.model.state import FlowState


def check_cursor(node: Node[Any, Any], target: CursorTarget) -> None:
    """Raises ValueError where the output of `node` can have nothing at the path."""
    try:
        type_at(node.output_type, target.steps)
    except LookupError as error:
        raise ValueError(
            f"node {node.name!r}: cursor {target.name!r} is to be {target.path!r} of its output,"
            f" which {error.args[0]}"
        ) from None


def saver_of(node: Node[Any, Any], target: CursorTarget) -> Saver:
    """The node of ours that does it."""

    def value(state: FlowState) -> Any:
        if not state.has(node):  # best effort, and it failed
            return None
        try:
            return value_at(state[node], target.steps)
        except NoItems:  # the last of a list that is empty this time
            return None
        except LookupError as error:
            raise TypeError(f"cursor {target.name!r}: output {node.key!r} {error}") from None

    return Saver(f"{node.key}.{target.name}.save", value, target.name)
