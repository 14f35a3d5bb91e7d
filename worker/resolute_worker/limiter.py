"""Limits: which of the begun nodes may start now, which a moment later, which must come back."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from resolute.engine import admission as rules
from resolute.engine.admission import SHORT, Bucket
from resolute.store import limits
from resolute.store.limits import Ask, Grant
from resolute.store.nodes import Return, chunks
from resolute.store.places import Seat, Spot
from resolute.store.store import Store
from resolute_worker.jobs import Job
from resolute_worker.places import Places

log = logging.getLogger(__name__)

CLOCK_GRAIN = 0.0005  # s; a wait below this is none
LATE = 0.1  # s; a start later than this after its time asks anew


@dataclass(slots=True)
class Admission:
    """A job, its buckets and what they granted.

    `sent` and `answered` are when they were asked, on the loop's clock (s): Redis's own time of the
    answer lies between them. A start no sooner than `answered` + wait is not early; one later than
    `sent` + wait + LATE may be late.
    """

    job: Job
    buckets: list[Bucket]
    sent: float
    answered: float = 0.0
    grants: dict[Bucket, Grant] = field(default_factory=dict[Bucket, Grant])
    seats: Sequence[Seat] = ()

    @property
    def told(self) -> list[Grant]:
        """The grants in the order of the buckets."""
        return [self.grants[bucket] for bucket in self.buckets]

    @property
    def wait(self) -> float:
        """Seconds from Redis's answer to the latest start time granted; below 0 if that is past."""
        return rules.wait_of(self.told)

    @property
    def is_granted(self) -> bool:
        return rules.is_granted(self.told)


class Limiter:
    """Asks the buckets for a batch: `start` runs a job, `hand_back` defers, `again` asks anew."""

    def __init__(
        self,
        store: Store,
        places: Places,
        lease: float,
        start: Callable[[Job], None],
        hand_back: Callable[[Job, Return], None],
        fail: Callable[[Job, BaseException], None],
        again: Callable[[Job], None],
    ) -> None:
        self._store = store
        self._places = places
        self._lease = lease
        self._start = start
        self._hand_back = hand_back
        self._fail = fail
        self._again = again
        self._loop = asyncio.get_running_loop()

    async def admit(self, jobs: Sequence[Job]) -> None:
        """Start each job when its limits allow, or hand it back until they do."""
        waiting: list[Admission] = []
        for job, seats in (await self._seated(jobs)).items():
            found = self._admission(job, seats)
            if found is not None and found.buckets:
                waiting.append(found)
            elif found is not None:
                self._start(job)
        asked: dict[Bucket, list[tuple[Admission, tuple[Ask, int, int]]]] = defaultdict(list)
        for admission in waiting:
            for bucket, ask in zip(admission.buckets, _asks(admission), strict=True):
                asked[bucket].append((admission, ask))
        for bucket, asks in asked.items():
            for batch in chunks(asks):
                grants = await limits.take(self._store, *bucket, [ask for _, ask in batch])
                for (admission, _), grant in zip(batch, grants, strict=True):
                    admission.grants[bucket] = grant
                    admission.answered = self._loop.time()
        for admission in waiting:
            await self._decide(admission)

    async def _seated(self, jobs: Sequence[Job]) -> Mapping[Job, Sequence[Seat]]:
        """Those that have all their places; who must wait for one is handed back."""
        wanted: dict[Job, list[Spot]] = {}
        for job in jobs:
            try:
                wanted[job] = rules.spots_of(job.bound, job.value)
            except BaseException as error:  # the key function of a limit is the user's
                self._fail(job, error)
        found = await self._places.take(wanted)
        for job, seats in list(found.items()):
            if all(seat.granted for seat in seats):
                continue
            del found[job]
            held = job.begun.hold if job.begun else ""
            await self._unreserve(job, held)
            delay = rules.turn_ms(seats, self._lease)
            hold = rules.hold_in_line(held, seats)
            self._hand_back(job, Return(job.held, job.queue, delay, hold))
        return found

    async def _unreserve(self, job: Job, hold: str) -> None:
        """Who has reserved a start, and now no place, leaves it to others."""
        if hold:
            buckets = rules.buckets_of(job.bound, job.value)
            for bucket, time, shift in rules.reserved_in(hold, buckets):
                await limits.take(self._store, *bucket, [(Ask.GIVE_BACK, time, shift)])

    def _admission(self, job: Job, seats: Sequence[Seat]) -> Admission | None:
        try:
            buckets = rules.buckets_of(job.bound, job.value)
        except BaseException as error:  # the key function of a limit is the user's
            self._fail(job, error)
            return None
        return Admission(job, buckets, self._loop.time(), seats=seats)

    async def _decide(self, admission: Admission) -> None:
        job, wait = admission.job, admission.wait
        if admission.is_granted and wait <= SHORT:
            self._start_at(admission, admission.answered + wait)
            return
        await self._give_back(admission)
        hold = rules.hold_for_time(rules.hold_of(admission.told), admission.seats)
        self._hand_back(job, Return(job.held, job.queue, rules.delay_ms(wait), hold))

    async def _give_back(self, admission: Admission) -> None:
        """Of two limits both must grant: what one granted too early is returned to it."""
        for bucket, grant in admission.grants.items():
            if grant.granted and not rules.is_kept(grant, admission.told):
                ask = (Ask.GIVE_BACK, grant.time, grant.shift)
                await limits.take(self._store, *bucket, [ask])

    def _start_at(self, admission: Admission, at: float) -> None:
        if at - self._loop.time() < CLOCK_GRAIN:
            self._start_in_time(admission)
        else:
            self._loop.call_at(at, self._start_in_time, admission)

    def _start_in_time(self, admission: Admission) -> None:
        job = admission.job
        if self._loop.time() - (admission.sent + admission.wait) <= LATE:
            self._start(job)
            return
        # Too late for the window its token was taken for: it asks for another.
        if job.begun is not None:
            job.begun.hold = rules.line_of(admission.told)
        self._again(job)

    async def pause(self, job: Job, seconds: float) -> None:
        """Nobody starts under this job's limits for so long: an API asked for it."""
        try:
            for bucket in rules.buckets_of(job.bound, job.value):
                await limits.push_back(self._store, *bucket, seconds)
        except Exception:  # the key function of a limit is the user's
            log.exception("pausing the limits of %s", job.bound.plan.name)


def _asks(admission: Admission) -> Sequence[tuple[Ask, int, int]]:
    begun = admission.job.begun
    return rules.asks_of(begun.hold if begun else "", len(admission.buckets))
