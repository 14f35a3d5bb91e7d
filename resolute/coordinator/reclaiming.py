"""How a lost node is described to the script that takes it back."""

from __future__ import annotations

import msgspec

from resolute.errors import ErrorInfo
from resolute.model.plan import Plan
from resolute.store.nodes import POISON, Held, Reclaim


def as_reclaim(plan: Plan, held: Held, process: str, queue: str) -> Reclaim:
    """A node to take back from `process` ('' if nobody claimed it), to run again.

    `queue` is the lane of its run, or its own.
    """
    entry = held.entry
    node = plan.node(entry.pc, entry.index)
    if entry.undo and node.compensation is not None:
        node = node.compensation
    error = ErrorInfo(
        type="Poison",
        message=f"{POISON} processes died while they ran this node, the last one {process}",
        node=node.name,
    )
    return Reclaim(
        held=held,
        process=process,
        queue=plan.lane_at(entry.pc, entry.index, queue, undo=entry.undo > 0),
        key=node.key if entry.undo else plan.key(entry.pc, entry.index),
        best_effort=node.best_effort,
        error=msgspec.msgpack.encode(error),
    )


def as_orphaned(plan: Plan, held: Held, child: str) -> Reclaim:
    """A node that waits for a run which is not there any more, or whose end was lost."""
    node = plan.node(held.entry.pc, held.entry.index)
    key = plan.key(held.entry.pc, held.entry.index)
    error = msgspec.msgpack.encode(
        ErrorInfo("ChildFailed", f"run {child} is gone, or its end was lost", node=key)
    )
    return Reclaim(held, "", "", key, node.best_effort, error, child)
