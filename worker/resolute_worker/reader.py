"""Reading the queue streams: entries become jobs, or go where they can be used."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Collection, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from resolute.engine.bound import Bound
from resolute.errors import ResoluteError
from resolute.priority import lanes_of
from resolute.status import Code
from resolute.store import dead, nodes, streams
from resolute.store.connection import ServerReply, backoff
from resolute.store.keys import Partition
from resolute.store.nodes import Held, Return
from resolute.store.reading import Found, GroupReader
from resolute.store.script import GROUP_WORKERS
from resolute.store.store import Store
from resolute_worker.jobs import Job, Stop
from resolute_worker.lanes import Lanes
from resolute_worker.runner import Runner
from resolute_worker.slots import Slots

log = logging.getLogger(__name__)

FENCED_PAUSE = 0.1  # s
LONER_CRASHES = 2  # a node with so many crashes behind it runs alone


@dataclass(slots=True)
class Batch:
    """What a delivery comes to: jobs, entries of no use, dead letters, nodes handed back, and
    those whose plan must be read first.
    """

    jobs: list[Job] = field(default_factory=list[Job])
    useless: list[str] = field(default_factory=list[str])
    dead: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])  # id, why
    returns: list[Return] = field(default_factory=list[Return])
    strange: list[streams.Message] = field(default_factory=list[streams.Message])
    plans: set[str] = field(default_factory=set[str])  # of the strange ones


class Reader:
    """Reads one queue, in every partition, with the streams of the plans offered here.

    `plans` are their hashes, and how the streams of nodes are named that are offered by name.
    """

    def __init__(
        self,
        store: Store,
        process: str,
        queue: str,
        plans: Sequence[str],
        runner: Runner,
        slots: Slots,
    ) -> None:
        self._store = store
        self._process = process
        self._runner = runner
        self._slots = slots
        self._source = GroupReader(store, f"{process}:queue", GROUP_WORKERS, process)
        self._lanes = Lanes(self._source, self._deliver_all)
        self._streams: dict[str, tuple[Partition, str]] = {}
        for name in (*lanes_of(queue), *(f"{queue}@{plan}" for plan in plans)):
            for partition in store.keys.partitions:
                self._streams[self._lanes.add(partition, name)] = (partition, name)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loner: Held | None = None
        self._generation = 0

    async def ensure_groups(self) -> None:
        for stream, (partition, _) in self._streams.items():
            await streams.ensure_group(self._store, partition, stream, GROUP_WORKERS)

    async def run(self) -> None:
        """Read until cancelled; a cancelled read hands nothing over, its connection is dropped."""
        failures = 0
        try:
            while True:
                try:
                    await self._read_or_repair()
                    failures = 0
                except ResoluteError as error:
                    log.debug("queue: %s", error)
                    await asyncio.sleep(backoff(failures))
                    failures += 1
        finally:
            await self._source.close()

    async def _read_or_repair(self) -> None:
        try:
            await self._read_once()
        except ServerReply as error:
            # The stream was deleted under the blocked read, or lost its group.
            log.warning("queue: %s; making its group anew", error)
            await self.ensure_groups()
            raise

    async def _read_once(self) -> None:
        if self._loner is not None:
            try:
                await self._run_alone(self._loner)
            finally:
                self._loner = None
        while self._runner.is_fenced:  # noqa: ASYNC110
            # What is read now could only be handed back. The page is the supervisor's: no event.
            await asyncio.sleep(FENCED_PAUSE)
        free = await self._slots.wait()
        await self._source.connect(self._streams)
        if self._source.generation != self._generation:
            # What was delivered into a connection that broke is pending here and comes no more.
            self._generation = self._source.generation
            await self._read_pending(self._streams)
        await self._lanes.read(free)

    async def read_pending(self) -> None:
        """Take up what this consumer has pending and does not run."""
        await self._read_pending(self._lanes.used)

    async def _read_pending(self, these: Collection[str]) -> None:
        for stream in these:
            after = "-"
            while ids := await streams.pending_of(
                self._store, stream, GROUP_WORKERS, self._process, after
            ):
                payloads = await streams.read_entries(self._store, stream, ids)
                found = [streams.Message(i, payload) for i, payload in payloads.items()]
                self._deliver(stream, found)
                after = ids[-1]

    def _deliver_all(self, found: Found) -> None:
        for stream, messages in found.items():
            self._deliver(stream, messages)

    def _deliver(
        self, stream: str, messages: Sequence[streams.Message], *, learned: bool = False
    ) -> None:
        """Make jobs of entries and begin them; what cannot run here goes where it can.

        Another team's flow may ask for a node that we offer: unless `learned`, its plan is read.
        """
        partition, queue = self._streams[stream]
        batch = Batch()
        for message in messages:
            if message.payload is None:
                batch.useless.append(message.id)
                continue
            try:
                held = Held.read(partition, queue, message.id, message.payload)
                if held.entry.is_query:
                    self._spawn(self._runner.queries.answer(held))
                    continue
                if not learned and not self._runner.offers.knows(held.entry.plan):
                    batch.strange.append(message)
                    batch.plans.add(held.entry.plan)
                    continue
                self._place(held, self._runner.bound_for(held), batch)
            except (ValueError, LookupError) as error:
                batch.dead.append((message.id, str(error)))
        by_name: dict[str, list[Job]] = defaultdict(list)
        for job in batch.jobs:
            by_name[job.held.queue].append(job)
        for jobs in by_name.values():
            self._spawn(self._runner.begin(jobs))
        if batch.useless or batch.dead or batch.returns:
            self._spawn(self._put_away(partition, queue, batch))
        if batch.strange:
            self._spawn(self._deliver_strange(stream, batch))

    async def _deliver_strange(self, stream: str, batch: Batch) -> None:
        try:
            await self._runner.offers.learn(batch.plans)
        except ResoluteError as error:
            log.warning("reading plans: %s; their entries stay pending and are read again", error)
            return
        self._deliver(stream, batch.strange, learned=True)

    def _place(self, held: Held, bound: Bound | None, batch: Batch) -> None:
        entry, queue = held.entry, held.lane
        known = self._runner.jobs.get((entry.flow, entry.seq, entry.index))
        if bound is None:
            # Another version's, or named: to the stream that only those read who can run it.
            batch.returns.append(Return(held, self._runner.offers.stream_for(queue, entry)))
        elif known is not None and known.held.id == held.id:
            return
        elif known is not None and known.held.entry.token == entry.token:
            batch.useless.append(held.id)  # the same hand-out, delivered twice
        elif known is not None:
            # It was taken back from us and handed out again: what runs here is no longer ours.
            known.request_stop(Stop.LOST)
            batch.returns.append(Return(held, queue))
        elif entry.crashes >= LONER_CRASHES:
            # One at a time: others need not wait for it, where another process has nothing to do.
            if self._loner is None:
                self._loner = held
            elif held != self._loner:
                batch.returns.append(Return(held, queue))
        elif (job := self._runner.adopt(held, bound)) is not None:
            batch.jobs.append(job)
        else:
            batch.returns.append(Return(held, queue))  # more than there are slots

    async def _run_alone(self, held: Held) -> None:
        """Read nothing more until this node, which killed its process twice, is over."""
        await self._slots.wait(self._slots.size)
        bound = self._runner.bound_for(held)
        job = self._runner.adopt(held, bound) if bound is not None else None
        if job is None:
            return
        log.warning("node %s of run %s has %d crashes behind it: it runs alone",
                    job.bound.plan.name, held.entry.flow, held.entry.crashes)  # fmt: skip
        self._spawn(self._runner.begin([job]))
        await self._slots.wait(self._slots.size)

    async def _put_away(self, partition: Partition, queue: str, batch: Batch) -> None:
        stream = partition.queue(queue)
        try:
            await streams.acknowledge(self._store, stream, GROUP_WORKERS, batch.useless)
            for returns in nodes.chunks(batch.returns):
                codes = await nodes.give_back(self._store, self._process, returns)
                batch.dead += [
                    (back.held.id, "damaged run")
                    for back, code in zip(returns, codes, strict=True)
                    if code == Code.ERROR
                ]
            for _, why in batch.dead:
                log.error("dead letter from %s: %s", stream, why)
            await dead.bury_entries(self._store, partition, queue, batch.dead)
        except ResoluteError as error:
            log.warning("putting entries away: %s; they stay pending and are read again", error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
