"""`current()`: what a node's function may ask about the attempt that it is."""

from __future__ import annotations

from contextvars import ContextVar

import msgspec

from resolute.engine.attempt import Bound
from resolute.model.messages import Entry

_attempt: ContextVar[tuple[Entry, Bound]] = ContextVar("resolute_attempt")


class NodeContext(msgspec.Struct, frozen=True):
    """One attempt of one node instance.

    `attempt` counts from 1 what the retry policy counts, `crashes` how often a process died with
    it; (`seq`, `index`) is the node's place among all that the run has dispatched.
    """

    run_id: str
    flow: str
    node: str
    seq: int
    index: int
    attempt: int
    crashes: int

    @property
    def key(self) -> str:
        """The same for every attempt of this node instance and for no other: an idempotency key."""
        return f"{self.run_id}/{self.seq}.{self.index}"


def current() -> NodeContext:
    """The attempt in which the caller runs. Raises LookupError outside of a node's function."""
    found = _attempt.get(None)
    if found is None:
        raise LookupError("current(): no node is running here")
    entry, bound = found
    return NodeContext(
        entry.flow, bound.flow.name, bound.plan.name, entry.seq, entry.index, entry.attempt,
        entry.crashes,
    )  # fmt: skip


def enter(entry: Entry, bound: Bound) -> None:
    """From here on, in this task, the caller is this attempt."""
    _attempt.set((entry, bound))
