"""`current()`: what a node's function may ask about the attempt that it is."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar, cast, overload

import msgspec

from resolute.engine.bound import Bound
from resolute.engine.progress import TOLD
from resolute.errors import LONGEST_PAUSE
from resolute.model import codec, references
from resolute.model.costs import Costs, cost_of
from resolute.model.messages import Entry
from resolute.model.references import DataRef

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Attempt:
    """What is known of the attempt that runs, and what it may do; `pause` takes seconds.

    `progress` is how far an attempt before it had come; `beat` says that it lives, and how far it
    has come itself. Both may be called in any thread.
    """

    entry: Entry
    bound: Bound
    costs: Costs
    pause: Callable[[float], None]
    beat: Callable[[bytes | None], None]
    progress: bytes | None


_attempt: ContextVar[_Attempt] = ContextVar("resolute_attempt")


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
        _running("add_cost").costs.add(cost_of(amount, unit, labels))

    def heartbeat(self, progress: Any = None) -> None:
        """Say that this attempt lives, and what an attempt after it should know of its progress.

        A node with `heartbeat="30s"` must say so every 30 s, from a coroutine or a thread. The
        progress, any value, is kept in Redis now and then: at the latest after a third of the
        heartbeat (5 s at most), and when the attempt fails. It is gone when the node completes.
        Raises NotEncodable, PayloadTooLarge; LookupError outside of a node's function, ValueError
        in a node of `paginate`, whose progress are its pages.
        """
        running = _running("heartbeat")
        if progress is not None and running.bound.pager is not None:
            raise ValueError("heartbeat: a node that fetches page by page keeps its pages; it"
                             " cannot keep other progress beside them")  # fmt: skip
        data = None
        if progress is not None:
            most = running.bound.flow.max_payload
            data = TOLD + codec.encode(progress, max_payload=most, what="progress")
        running.beat(data)

    @overload
    def progress(self) -> Any: ...
    @overload
    def progress(self, type_: type[T]) -> T | None: ...
    def progress(self, type_: Any = Any) -> Any:
        """What an attempt before this one told its `heartbeat` last; None where none did.

        Raises msgspec.ValidationError where it is no `type_`; LookupError outside of a node's
        function.
        """
        running = _running("progress")
        if running.progress is None or running.bound.pager is not None:
            return None
        return codec.decode(running.progress.removeprefix(TOLD), type_)

    def pause_limits(self, seconds: float) -> None:
        """Let nobody start under the rate limits of this node for so long, up to 30 days.

        These are its own, the shared ones, and its provider's, with the key that they have for
        this input. It is what RetryAfter does, for a node that succeeds, and holds from now on; a
        longer pause stays. What has no limit has nothing to pause. Raises TypeError and ValueError
        for what is no such number; LookupError outside of a node's function.
        """
        pause = _running("pause_limits").pause
        if (checked := _pause_of(seconds)) > 0:
            pause(checked)


def current() -> NodeContext:
    """The attempt in which the caller runs. Raises LookupError outside of a node's function."""
    found = _running("current")
    entry, bound = found.entry, found.bound
    return NodeContext(
        entry.flow, bound.flow.name, bound.plan.name, entry.seq, entry.index, entry.attempt,
        entry.crashes,
    )  # fmt: skip


def enter(
    entry: Entry,
    bound: Bound,
    pause: Callable[[float], None],
    beat: Callable[[bytes | None], None],
    progress: bytes | None,
) -> Costs:
    """From here on, in this task, the caller is this attempt; what it will have cost.

    `pause` closes its limits for so many seconds, `beat` takes its heartbeats; both may be called
    in any thread. `progress` is what an attempt before it told.
    """
    costs = Costs()
    _attempt.set(_Attempt(entry, bound, costs, pause, beat, progress))
    return costs


def _running(caller: str) -> _Attempt:
    found = _attempt.get(None)
    if found is None:
        raise LookupError(f"{caller}(): no node is running here")
    return found


def _pause_of(seconds: float) -> float:
    """Seconds that limits can be paused for. Raises TypeError, ValueError."""
    expected = f"expected 0 to {LONGEST_PAUSE:,.0f} seconds"
    given = cast("object", seconds)
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise TypeError(f"pause_limits: {expected}, got {given!r}")
    if not 0 <= given <= LONGEST_PAUSE:  # not a number, too
        raise ValueError(f"pause_limits: {expected}, got {given!r}")
    return float(given)


def _encode(value: Any) -> bytes:
    return codec.encode(value, max_payload=codec.UNBOUNDED, what="value to store")
