"""What a flow's author wants to hear of its runs: functions that are called on the worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import cast

import msgspec

from resolute.errors import ErrorInfo
from resolute.status import NodeStatus, RunStatus


class NodeEvent(msgspec.Struct, frozen=True):
    """One attempt of a node: it is about to run, or has an outcome that is about to be committed.

    `status` is running, completed or failed; `error` says why it failed, and `retry_in` in how many
    seconds the next attempt follows (None: in none). Times are seconds of Unix time by the worker's
    clock; `begun` is None where the function was not called. `compensates` is the node that this
    one undoes.
    """

    run_id: str
    flow: str
    node: str
    seq: int
    index: int
    attempt: int
    crashes: int
    status: NodeStatus
    begun: float | None = None
    ended: float | None = None
    error: ErrorInfo | None = None
    retry_in: float | None = None
    compensates: str = ""

    @property
    def key(self) -> str:
        """The same for every attempt of this node instance and for no other."""
        return f"{self.run_id}/{self.seq}.{self.index}"


class CostEvent(msgspec.Struct, frozen=True):
    """One entry of what an attempt cost; `number` counts those of the attempt from 1."""

    run_id: str
    flow: str
    node: str
    seq: int
    index: int
    attempt: int
    crashes: int
    number: int
    amount: Decimal
    unit: str
    labels: Mapping[str, str]


class StepEvent(msgspec.Struct, frozen=True):
    """A step is about to begin (`status` is running), or is over and the run goes on (completed).

    In a loop it is told of in each turn; `seq` is the number of the telling in the run's history.
    """

    run_id: str
    flow: str
    step: str
    seq: int
    status: NodeStatus

    @property
    def key(self) -> str:
        """The same whenever this is told again, and for no other."""
        return f"{self.run_id}/{self.seq}.0"


class FlowEvent(msgspec.Struct, frozen=True):
    """A run has begun (`status` is running), or is about to end.

    It is then completed, or failed or cancelled, with `error`, when all is compensated.
    """

    run_id: str
    flow: str
    status: RunStatus
    error: ErrorInfo | None = None


@dataclass(frozen=True)
class FlowHooks:
    """Functions, plain or coroutine functions, that a worker calls beside the nodes of a flow.

    They are called at least once, in a thread of their own, and have 10 s together each time. What
    they raise is logged and changes nothing. Raises TypeError for what cannot be called.
    """

    before_node: Callable[[NodeEvent], object] | None = None
    after_node: Callable[[NodeEvent], object] | None = None
    on_cost: Callable[[CostEvent], object] | None = None
    before_flow: Callable[[FlowEvent], object] | None = None
    after_flow: Callable[[FlowEvent], object] | None = None
    before_step: Callable[[StepEvent], object] | None = None
    after_step: Callable[[StepEvent], object] | None = None

    def __post_init__(self) -> None:
        for one in fields(self):
            fn = cast("object", getattr(self, one.name))
            if fn is not None and not callable(fn):
                raise TypeError(f"{one.name}: expected a function, got {fn!r}")


NO_HOOKS = FlowHooks()
