"""A job: one attempt of one node in this process, from the claim to the committed outcome."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from resolute.engine.bound import Bound
from resolute.model.costs import Costs
from resolute.store.nodes import Begun, Held


class Stop(Enum):
    """Why a running job was stopped from outside."""

    TIMEOUT = "timeout"  # it overran: the attempt failed
    SILENCE = "silence"  # so it did: it gave no heartbeat in time
    CANCEL = "cancel"  # its run was cancelled: it failed for good
    HAND_BACK = "hand back"  # drain or fence: somebody else runs it, no attempt is used up
    LOST = "lost"  # its claim is gone: nothing is reported


@dataclass(slots=True, eq=False)
class Pulse:
    """When an attempt gave its last sign of life. Times are monotonic, spans in seconds."""

    span: float
    last: float
    must_end: float  # by its timeout
    timer: asyncio.TimerHandle | None = None
    is_over: bool = False  # nobody listens any more
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_next(self) -> bool:
        """Whether it has to give a sign before it has to end."""
        return self.deadline < self.must_end

    @property
    def deadline(self) -> float:
        return min(self.must_end, self.last + self.span)


@dataclass(slots=True, eq=False)
class Progress:
    """What an attempt told of its progress, and how much of that is written."""

    unkept: bytes | None = None
    kept_at: float = float("-inf")  # monotonic
    timer: asyncio.TimerHandle | None = None


@dataclass(slots=True, eq=False)
class Job:
    """Lives in one slot. `loaded` names the fields that `begun.values` are of."""

    held: Held
    bound: Bound
    slot: int
    loaded: list[str]
    begun: Begun | None = None
    value: Any = None
    task: asyncio.Task[None] | None = None
    timer: asyncio.TimerHandle | None = None
    stop: Stop | None = None
    is_reported: bool = False  # its outcome is on its way
    costs: Costs | None = None  # what it has spent, once its function was called
    called: float | None = None  # Unix time at which it was
    is_running: bool = False  # its task has taken its first step
    is_slow: bool = False  # its input, or what it asks of the state, may be in the storage
    pages: int | None = None  # that were kept before the last one, which its output has too
    pulse: Pulse | None = None  # where its node must give signs of life
    progress: Progress | None = None  # where it told of any
    stored: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])  # folder, path

    @property
    def is_stopped(self) -> bool:
        return self.stop is not None

    @property
    def values(self) -> Sequence[bytes | None]:
        """What came with the claim, of the fields in `loaded`."""
        return self.begun.values if self.begun is not None else ()

    @property
    def key(self) -> str:
        """Its output key."""
        return self.bound.key(self.held.entry)

    @property
    def queue(self) -> str:
        """The lane that serves it, for when it is handed out again."""
        return self.held.lane

    def request_stop(self, why: Stop) -> None:
        """Cancel it, if its function can be cancelled; the first reason given counts."""
        if self.is_stopped:
            return
        self.stop = why
        # A task cancelled before its first step would end without a word; it looks at `stop` then.
        if self.task is not None and self.is_running and not self.bound.is_threaded:
            self.task.cancel()
