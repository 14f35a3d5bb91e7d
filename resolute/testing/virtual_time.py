"""An event loop in which time passes only when nothing is left to do.

When every task waits, the clock jumps to the earliest timer: `asyncio.sleep(3600)` takes no time,
and whatever asks the loop for the time (timeouts, `call_later`) agrees. The idea is that of
discrete-event simulation; `trio.testing.MockClock` with `autojump_threshold` does the same.

What comes from outside the loop takes no virtual time, but it does take its time: while a thread
of an executor runs, the clock stands still. Of other threads and of sockets the loop cannot know
whether they will ever say something. Where nothing but that may be waited for, it listens for
`PATIENCE` before it jumps.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple

PATIENCE = 1.0  # s of real time

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Selector(selectors.DefaultSelector):
    """Asks its loop what to do where there is nothing to do yet."""

    idle: Callable[[float | None], float | None]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        events = super().select(0)
        if events or (timeout is not None and timeout <= 0):
            return events
        patience = self.idle(timeout)
        if patience is None or patience > 0:
            events = super().select(patience)
        if not events and timeout is not None:
            self.jump(timeout)
        return events

    jump: Callable[[float], None]


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Time begins at 0 s."""

    def __init__(self) -> None:
        self._now = 0.0
        self._outside = 0  # calls in threads of an executor
        self._timers: list[asyncio.TimerHandle] = []
        selector = _Selector()
        super().__init__(selector)
        selector.idle = self._idle
        selector.jump = self._jump
        self._descriptors = selector.get_map()
        self._own_descriptors = len(self._descriptors)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._now

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        handle = super().call_at(when, callback, *args, context=context)
        self._timers.append(handle)
        return handle

    def set_deadline(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts
    ) -> asyncio.TimerHandle:
        """Like `call_at`, for a time that is only reached if something takes too long.

        It may come from outside meanwhile, so that this alone lets no time pass at once.
        """
        return super().call_at(when, callback, *args)

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future = super().run_in_executor(executor, func, *args)
        self._outside += 1
        future.add_done_callback(self._came_back)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Wait for its threads, in real time."""
        self._outside += 1
        try:
            await super().shutdown_default_executor()
        finally:
            self._outside -= 1

    def _came_back(self, _: asyncio.Future[Any]) -> None:
        self._outside -= 1

    def _idle(self, timeout: float | None) -> float | None:
        """How long to listen, in real seconds, before time jumps; None: until something comes."""
        if self._outside or timeout is None:
            return None
        self._timers = [
            handle
            for handle in self._timers
            if not handle.cancelled() and handle.when() > self._now
        ]
        is_sure = self._timers and len(self._descriptors) <= self._own_descriptors
        return 0.0 if is_sure else PATIENCE

    def _jump(self, span: float) -> None:
        if not self._outside:
            self._now += span
