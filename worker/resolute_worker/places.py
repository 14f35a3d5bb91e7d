"""The places that this process has of concurrency limits, and the lines that its nodes wait in.

Whoever gives a place back is told who is next, and wakes it. What a crash or a lost reply leaves
undone is made up for by `look`, which every process does for the limits that it uses: it says which
places it has, frees those of processes whose lease is over, and wakes who has a turn. So a place
lives as long as the lease of its process, by the beats of the supervisor: a process that is cut off
has stopped its nodes before that is over.

Calls of one limit follow each other here, so that what `look` says is what the process was given.
For that there is one account of each limit, under its name and key: not two for nodes that say
different things of how many places it has, nor a second one while the first has a call to make,
or a copy of one that was sent twice may still come.

A place is named by its node, the token of its hand-out and the process: a server that lost a second
gives the same token to two.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from resolute.engine import admission as rules
from resolute.errors import ResoluteError
from resolute.store import places, registry
from resolute.store.nodes import chunks
from resolute.store.places import Ask, Seat, Spot, Terms
from resolute.store.servers import Epoch
from resolute.store.store import Store
from resolute_worker.jobs import Job

log = logging.getLogger(__name__)

LOOKS = 4  # in a lease
LAPSE = 1 / 3  # of a lease that a place is kept for a node that was woken
COPIES = 60.0  # s in which the first copy of a call may come whose answer was lost


@dataclass(slots=True, eq=False)
class _Limit:
    """What this process knows of one limit; `spot` is as the last node that asked had it.

    `used` is the loop's time when it last asked, `calls` how many are under way or to come;
    `epoch` is the connection under which the server knew all that is `held`, and until
    `copies_until` a call that was sent twice may come once more.
    """

    spot: Spot
    used: float
    calls: int = 0
    epoch: Epoch | None = None
    copies_until: float = 0.0
    held: set[str] = field(default_factory=set[str])  # <node>|<token>
    leaving: list[Ask] = field(default_factory=list[Ask])
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0  # nodes in line, as it was seen last
    ttl_ms: int = 0

    def is_idle_since(self, time: float) -> bool:
        is_used = self.held or self.leaving or self.waiting or self.calls
        return not is_used and self.used < time


class Places:
    """Takes and gives back; `lease` is that of this process in seconds."""

    def __init__(self, store: Store, process: str, lease: float) -> None:
        self._store = store
        self._process = process
        self._lease = lease
        self._rounds = itertools.count(1)
        self._limits: dict[tuple[str, str], _Limit] = {}
        self._looking = asyncio.Lock()
        self._unknown: dict[str, float] = {}  # processes with places, by when that was seen first
        self._jobs: dict[Job, list[tuple[_Limit, Ask]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    async def take(self, wanted: Mapping[Job, Sequence[Spot]]) -> dict[Job, list[Seat]]:
        """Ask for the places that jobs need; each with its answers, up to the first refusal.

        What was granted to one that cannot start for another limit's sake it has until it `leaves`.
        """
        seats: dict[Job, list[Seat]] = {job: [] for job in wanted}
        for at in range(max(map(len, wanted.values()), default=0)):
            asked: dict[Spot, list[Job]] = defaultdict(list)
            for job, spots in wanted.items():
                if at < len(spots) and all(seat.granted for seat in seats[job]):
                    asked[spots[at]].append(job)
            for spot, jobs in asked.items():
                limit = self._limit(spot)
                for batch in chunks(jobs):
                    answers = await self._ask(limit, spot, batch)
                    for job, seat in zip(batch, answers, strict=True):
                        seats[job].append(seat)
        return seats

    async def _ask(self, limit: _Limit, spot: Spot, jobs: Sequence[Job]) -> list[Seat]:
        asks = [self._ask_of(job) for job in jobs]
        longest = max(job.bound.plan.timeout_ms for job in jobs)
        async with self._turn(limit):
            limit.ttl_ms = max(limit.ttl_ms, longest + places.SPARE_MS)
            epoch = self._epoch(limit)
            if limit.held and limit.epoch != epoch:
                # What the server has forgotten of ours counts before it gives us more.
                await self._put_right(limit, ())
            limit.epoch = epoch
            seats, told = await places.take(
                self._store, self._process, next(self._rounds), spot, self._terms(limit), asks
            )
            for job, ask, seat in zip(jobs, asks, seats, strict=True):
                if seat.granted:
                    limit.held.add(_field(ask))
                    self._jobs.setdefault(job, []).append((limit, ask))
                else:
                    limit.waiting += 1
        self._wake(limit, told)
        return seats

    def _ask_of(self, job: Job) -> Ask:
        token = f"{job.held.entry.token}@{self._process}"
        ticket = rules.read_hold(job.begun.hold).ticket if job.begun is not None else 0
        return Ask(places.node_name(job.held, job.queue), token, ticket)

    def leave(self, job: Job) -> None:
        """Give back what a job has, soon."""
        for limit, ask in self._jobs.pop(job, ()):
            self._leave(limit, [ask])

    def _leave(self, limit: _Limit, gone: Iterable[Ask]) -> None:
        is_first = not limit.leaving
        limit.leaving += gone
        if is_first and limit.leaving:
            self._spawn(self._send_leaving(limit))

    async def _send_leaving(self, limit: _Limit) -> None:
        async with self._turn(limit):
            gone, limit.leaving = limit.leaving, []
            limit.used = self._loop.time()
            told: list[str] = []
            limit.held -= set(map(_field, gone))
            for batch in chunks([(ask.node, ask.token) for ask in gone]):
                told += await places.leave(self._store, limit.spot, self._terms(limit), batch)
        self._wake(limit, told)

    def _wake(self, limit: _Limit, nodes: Sequence[str]) -> None:
        if nodes:
            self._spawn(self._send_wakes(limit, nodes))

    async def _send_wakes(self, limit: _Limit, nodes: Sequence[str]) -> None:
        """Hand out those whose turn it is; who will never come leaves the line to the next."""
        never = await places.wake(self._store, nodes)
        self._leave(limit, [Ask(node, "") for node in never])

    async def run(self) -> None:
        """Look several times a lease, until cancelled."""
        while True:
            await asyncio.sleep(self._lease / LOOKS)
            await self.look()

    async def look(self) -> None:
        """Put right what is wrong at the limits that are used here, and forget the others.

        One after the other: after a reconnect there may be two. What one of them has forgotten, and
        is used anew, the other must not put right by what it was.
        """
        async with self._looking:
            self._forget()
            found: dict[_Limit, Sequence[str]] = {}
            for limit in list(self._limits.values()):
                found[limit] = await self._sync(limit, ())
            others = {name for names in found.values() for name in names} - {self._process}
            dead = await self._dead_of(others)
            for limit, names in found.items():
                if lost := sorted(dead.intersection(names)):
                    log.info("concurrency limit %s: processes have left: %s",
                             limit.spot.limit.name, ", ".join(lost))  # fmt: skip
                    await self._sync(limit, lost)

    async def _dead_of(self, names: Collection[str]) -> set[str]:
        """Those whose lease is over, or that were unknown at every look for a lease."""
        try:
            ends = await registry.ends_of(self._store, sorted(names))
        except ResoluteError as error:
            log.warning("looking at who has places: %s", error)
            return set()
        now = self._loop.time()
        self._unknown = {name: self._unknown.get(name, now) for name in ends.unknown}
        return ends.over | {n for n, since in self._unknown.items() if now - since >= self._lease}

    async def _sync(self, limit: _Limit, dead: Sequence[str]) -> Sequence[str]:
        """The processes that have places of a limit, once ours are as they are here.

        None of a limit whose key is damaged: the others are looked at all the same.
        """
        try:
            async with self._turn(limit):
                return await self._put_right(limit, dead)
        except ResoluteError as error:
            log.warning("looking at concurrency limit %s: %s", limit.spot.limit.name, error)
            return ()

    async def _put_right(self, limit: _Limit, dead: Sequence[str]) -> Sequence[str]:
        epoch = self._epoch(limit)
        synced, told = await places.sync(
            self._store, self._process, next(self._rounds), limit.spot, self._terms(limit),
            sorted(limit.held), dead,
        )  # fmt: skip
        limit.epoch, limit.waiting = epoch, synced.waiting
        self._wake(limit, told)
        return synced.processes

    @contextlib.asynccontextmanager
    async def _turn(self, limit: _Limit) -> AsyncGenerator[None]:
        """The only call of this limit meanwhile."""
        limit.calls += 1
        try:
            async with limit.lock:
                epoch, is_answered = self._epoch(limit), False
                try:
                    yield
                    is_answered = self._epoch(limit) == epoch
                finally:
                    if not is_answered:
                        limit.copies_until = self._loop.time() + COPIES
        finally:
            limit.calls -= 1

    def _epoch(self, limit: _Limit) -> Epoch:
        return places.epoch_of(self._store, limit.spot)

    def _forget(self) -> None:
        """Limits of which nobody here has anything, nobody waits, and nobody asked for a while."""
        now = self._loop.time()
        old = now - 2 * self._lease / LOOKS
        for name, limit in list(self._limits.items()):
            if limit.is_idle_since(old) and limit.copies_until <= now:
                del self._limits[name]

    def _limit(self, spot: Spot) -> _Limit:
        name = (spot.limit.name, spot.key)
        limit = self._limits.get(name)
        if limit is None:
            limit = self._limits[name] = _Limit(spot, 0.0)
        limit.spot, limit.used = spot, self._loop.time()
        return limit

    def _terms(self, limit: _Limit) -> Terms:
        return Terms(round(1000 * self._lease * LAPSE), limit.ttl_ms)

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(self._surviving(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _surviving(self, work: Any) -> None:
        try:
            await work
        except Exception:
            # The next look makes up for it.
            log.exception("concurrency limits")

    async def drain(self) -> None:
        """Wait until everything that was given back has been answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)


def _field(ask: Ask) -> str:
    """How a place is called in what a process says that it has."""
    return f"{ask.node}|{ask.token}"
