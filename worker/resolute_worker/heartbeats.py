"""Signs of life: a silent attempt is stopped, and what it told of its progress is kept.

Told from whatever thread the node runs in. A sign counts at once, whether or not the loop is free,
for the loop's own watch and for that of the supervisor. Progress is written at most every third of
the heartbeat, and what is unwritten when an attempt fails, or is handed back, before that is told.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from typing import Any

from resolute.errors import ResoluteError
from resolute.status import Code
from resolute.store import nodes
from resolute.store.store import Store
from resolute_worker.jobs import Job, Progress, Pulse, Stop
from resolute_worker.shared import SharedPage

Spawn = Callable[[Coroutine[Any, Any, None]], None]

log = logging.getLogger(__name__)

LONGEST_UNKEPT = 5.0  # s that progress is unwritten at most, while the node goes on


class Heartbeats:
    """Those of the jobs of one process. `spawn` runs a coroutine that nobody waits for."""

    def __init__(self, store: Store, process: str, page: SharedPage, spawn: Spawn) -> None:
        self._store = store
        self._process = process
        self._page = page
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()  # of the loop

    def listen(self, job: Job, timeout: float) -> None:
        """Expect signs of a job from now on, where its node is to give them; `timeout` is left."""
        span = job.bound.plan.heartbeat_ms / 1000
        if not span:
            return
        now = time.monotonic()
        pulse = job.pulse = Pulse(span, now, now + timeout)
        self._show(job, pulse)
        pulse.timer = self._loop.call_later(span, self._look, job, pulse)

    def beat(self, job: Job, progress: bytes | None) -> None:
        """The job lives, and has come so far; from any thread. Once it is over nobody listens."""
        pulse = job.pulse
        if pulse is not None:
            with pulse.lock:
                if pulse.is_over:
                    return
                pulse.last = time.monotonic()
                self._show(job, pulse)
        if progress is None:
            return
        if threading.get_ident() == self._thread:
            self._note(job, progress)
        else:
            self._loop.call_soon_threadsafe(self._note, job, progress)

    def stop(self, job: Job) -> None:
        """Its function has returned, or is over: no sign is expected any more."""
        pulse = job.pulse
        if pulse is None:
            return
        with pulse.lock:
            pulse.is_over = True
        if pulse.timer is not None:
            pulse.timer.cancel()
            pulse.timer = None

    async def keep_rest(self, job: Job) -> None:
        """Write what is not written yet: the job ends without having come to its end."""
        progress = job.progress
        if progress is not None and progress.unkept is not None:
            await self._keep(job, progress)

    def has_rest(self, job: Job) -> bool:
        return job.progress is not None and job.progress.unkept is not None

    def _show(self, job: Job, pulse: Pulse) -> None:
        self._page.extend(job.slot, pulse.deadline, is_pulse=pulse.is_next)

    def _look(self, job: Job, pulse: Pulse) -> None:
        left = pulse.last + pulse.span - time.monotonic()
        if left <= 0:
            job.request_stop(Stop.SILENCE)
        else:
            pulse.timer = self._loop.call_later(left, self._look, job, pulse)

    def _note(self, job: Job, data: bytes) -> None:
        if job.is_reported:
            return
        progress = job.progress = job.progress or Progress()
        progress.unkept = data
        if progress.timer is None:
            span = job.bound.plan.heartbeat_ms / 3000 or LONGEST_UNKEPT
            due = progress.kept_at + min(span, LONGEST_UNKEPT)
            delay = max(0.0, due - time.monotonic())
            progress.timer = self._loop.call_later(delay, self._due, job, progress)

    def _due(self, job: Job, progress: Progress) -> None:
        progress.timer = None
        if not job.is_reported:
            self._spawn(self._keep(job, progress))

    async def _keep(self, job: Job, progress: Progress) -> None:
        if progress.timer is not None:
            progress.timer.cancel()
            progress.timer = None
        data, progress.unkept = progress.unkept, None
        if data is None:
            return
        progress.kept_at = time.monotonic()
        try:
            code = await nodes.keep_progress(self._store, self._process, job.held, data)
        except ResoluteError as error:
            log.warning("progress of %s of run %s: %s; with its next heartbeat",
                        job.bound.plan.name, job.held.entry.flow, error)  # fmt: skip
            progress.unkept = progress.unkept or data
            return
        if code != Code.OK and not job.is_reported:
            job.request_stop(Stop.LOST)
