"""Limits: which of the begun nodes may start now, which a moment later, which must come back."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from resolute.model.plan import LimitPlan
from resolute.store import limits
from resolute.store.limits import Ask, Grant
from resolute.store.nodes import Return, chunks
from resolute.store.store import Store
from resolute_worker.jobs import Job

log = logging.getLogger(__name__)

SHORT_US = 50_000  # a wait up to this is slept; a longer one holds no slot
LATE = 0.1  # s; a start later than this after its time asks anew
IN_LINE = "line"  # the hold of a node that comes back at its place in the line


@dataclass(slots=True)
class Admission:
    """A job and the bucket keys of its limits, and what the buckets said."""

    job: Job
    keys: list[str]
    grants: list[Grant]


class Limiter:
    """Asks the buckets for a batch; `start` runs a job, `hand_back` defers it."""

    def __init__(
        self,
        store: Store,
        start: Callable[[Job], None],
        hand_back: Callable[[Job, Return], None],
        fail: Callable[[Job, BaseException], None],
    ) -> None:
        self._store = store
        self._start = start
        self._hand_back = hand_back
        self._fail = fail
        self._loop = asyncio.get_running_loop()

    async def admit(self, jobs: Sequence[Job]) -> None:
        """Start each job when its limits allow, or hand it back until they do."""
        waiting: list[Admission] = []
        for job in jobs:
            try:
                keys = [key(job.value) if key else "" for key in job.bound.limit_keys]
            except Exception as error:
                self._fail(job, error)
                continue
            waiting.append(Admission(job, keys, []))
        buckets: dict[tuple[LimitPlan, str], list[Admission]] = defaultdict(list)
        for admission in waiting:
            for limit, key in zip(admission.job.bound.plan.limits, admission.keys, strict=True):
                buckets[limit, str(key)].append(admission)
        answered = self._loop.time()
        for (limit, key), admissions in buckets.items():
            for batch in chunks(admissions):
                asks = [_ask(admission) for admission in batch]
                grants = await limits.take(self._store, limit, key, asks)
                answered = self._loop.time()
                for admission, grant in zip(batch, grants, strict=True):
                    admission.grants.append(grant)
        for admission in waiting:
            await self._decide(admission, answered)

    async def _decide(self, admission: Admission, answered: float) -> None:
        job, grants = admission.job, admission.grants
        now = grants[-1].now
        latest = max(grant.time for grant in grants)
        wait_us = latest - now
        if all(grant.granted for grant in grants) and wait_us <= SHORT_US:
            self._start_at(job, answered + max(0, wait_us) / 1_000_000)
            return
        if len(grants) == 1:
            grant = grants[0]
            hold = f"{grant.time if grant.granted else IN_LINE}:{grant.epoch}"
        else:
            await self._give_back(admission)
            hold = ""
        delay_ms = max(1, (wait_us - SHORT_US) // 1000)
        self._hand_back(job, Return(job.held, job.queue, delay_ms, hold))

    async def _give_back(self, admission: Admission) -> None:
        """Of two limits both must grant: what one granted alone is returned to it."""
        limits_and_keys = zip(admission.job.bound.plan.limits, admission.keys, strict=True)
        for (limit, key), grant in zip(limits_and_keys, admission.grants, strict=True):
            if grant.granted:
                ask = (Ask.GIVE_BACK, grant.time, grant.epoch)
                await limits.take(self._store, limit, key, [ask])

    def _start_at(self, job: Job, at: float) -> None:
        if at - self._loop.time() < 0.0005:
            self._start_in_time(job, at)
        else:
            self._loop.call_at(at, self._start_in_time, job, at)

    def _start_in_time(self, job: Job, at: float) -> None:
        if self._loop.time() - at <= LATE:
            self._start(job)
        else:
            # Too late for the window its token was taken for: ask for another.
            if job.begun is not None:
                job.begun.hold = ""
            job.task = self._loop.create_task(self.admit([job]))

    async def pause(self, job: Job, seconds: float) -> None:
        """An API said Retry-After: nobody starts under this job's limits until then."""
        for limit, key in zip(job.bound.plan.limits, job.bound.limit_keys, strict=True):
            text = str(key(job.value)) if key else ""
            await limits.push_back(self._store, limit, text, seconds)


def _ask(admission: Admission) -> tuple[Ask, int, int]:
    begun = admission.job.begun
    hold = begun.hold if begun else ""
    if len(admission.keys) > 1 or not hold:
        return (Ask.NEW, 0, 0)
    time, _, epoch = hold.partition(":")
    if time == IN_LINE:
        return (Ask.RETURNING, 0, int(epoch))
    return (Ask.CONFIRM, int(time), int(epoch))
