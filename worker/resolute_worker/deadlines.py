"""How long a job has: a timer on the loop, and what the supervisor sees in the shared page."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Generator

from resolute_worker.heartbeats import Heartbeats
from resolute_worker.jobs import Job, Stop
from resolute_worker.shared import SharedPage


class Deadlines:
    """Those of the jobs of one process, with the heartbeats that are due before. Spans in s."""

    def __init__(self, page: SharedPage, heartbeats: Heartbeats) -> None:
        self._page = page
        self._heartbeats = heartbeats
        self._loop = asyncio.get_running_loop()

    def begin(self, job: Job) -> None:
        """Its function is called from now on."""
        timeout = job.bound.plan.timeout_ms / 1000
        self._expire_in(job, timeout)
        self._heartbeats.listen(job, timeout)

    def _expire_in(self, job: Job, left: float) -> None:
        self.occupy(job, left)
        job.timer = self._loop.call_later(left, job.request_stop, Stop.TIMEOUT)

    def occupy(self, job: Job, left: float) -> None:
        """Tell the supervisor what runs in the job's slot, and for how many s more."""
        held = job.held
        label = f"{held.queue} {held.id}".encode()
        self._page.occupy(job.slot, time.monotonic() + left, held.partition.number, label)

    def returned(self, job: Job) -> None:
        """Its function is over: no heartbeat is expected any more, what is left is its timeout."""
        if job.pulse is not None:
            self._heartbeats.stop(job)
            self.occupy(job, self._left(job))

    @contextlib.contextmanager
    def standing_still(self, job: Job) -> Generator[None]:
        """While its result is put into the storage, however long that takes.

        Its function has told what it had to: no heartbeat is expected any more.
        """
        left = self._left(job)
        if job.timer is not None:
            job.timer.cancel()
        self._heartbeats.stop(job)
        self.occupy(job, math.inf)
        yield  # where that raises the job is over
        self._expire_in(job, left)

    def _left(self, job: Job) -> float:
        """Of its timeout, which stood still now and then."""
        return max(0.0, job.timer.when() - self._loop.time()) if job.timer is not None else 0.0

    def end(self, job: Job) -> None:
        """Its slot runs nothing any more."""
        self._page.release(job.slot)
        if job.timer is not None:
            job.timer.cancel()
            job.timer = None
        self._heartbeats.stop(job)
