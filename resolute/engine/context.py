"""`current()`: what a node's function may ask about the attempt that it is."""

from __future__ import annotations

from contextvars import ContextVar
from decimal import Decimal
from typing import Any, TypeVar

import msgspec

from resolute.engine.attempt import Bound
from resolute.model import codec, references
from resolute.model.costs import Costs, cost_of
from resolute.model.messages import Entry
from resolute.model.references import DataRef

T = TypeVar("T")

_attempt: ContextVar[tuple[Entry, Bound, Costs]] = ContextVar("resolute_attempt")


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

    async def store(self, value: T) -> DataRef[T]:
        """Put a value into the storage, from a coroutine function; a reference to pass on.

        It is deleted with the run. Raises NotEncodable, PayloadTooLarge above the storage's
        `max_stored`, ConfigurationError where the worker has no storage, StorageUnavailable.
        """
        stored = await references.access.get().store(_encode(value))
        return DataRef(stored.path, stored.size, stored.sha256, type(value))

    def store_sync(self, value: T) -> DataRef[T]:
        """The same from a plain function."""
        stored = references.access.get().store_sync(_encode(value))
        return DataRef(stored.path, stored.size, stored.sha256, type(value))

    @property
    def key(self) -> str:
        """The same for every attempt of this node instance and for no other: an idempotency key."""
        return f"{self.run_id}/{self.seq}.{self.index}"

    def add_cost(
        self, amount: Decimal | float | str, unit: str = "usd", **labels: str | float
    ) -> None:
        """Say what this attempt has spent, in millionths of `unit` at the finest.

        The sums of the run count it when the attempt completes or fails. Raises ValueError and
        TypeError for what is no amount, unit or label; LookupError outside of a node's function.
        """
        found = _attempt.get(None)
        if found is None:
            raise LookupError("add_cost(): no node is running here")
        found[2].add(cost_of(amount, unit, labels))


def current() -> NodeContext:
    """The attempt in which the caller runs. Raises LookupError outside of a node's function."""
    found = _attempt.get(None)
    if found is None:
        raise LookupError("current(): no node is running here")
    entry, bound, _ = found
    return NodeContext(
        entry.flow, bound.flow.name, bound.plan.name, entry.seq, entry.index, entry.attempt,
        entry.crashes,
    )  # fmt: skip


def enter(entry: Entry, bound: Bound) -> Costs:
    """From here on, in this task, the caller is this attempt; what it will have cost."""
    costs = Costs()
    _attempt.set((entry, bound, costs))
    return costs


def _encode(value: Any) -> bytes:
    return codec.encode(value, max_payload=codec.UNBOUNDED, what="value to store")
