"""Leases: who is alive, and taking back what the dead had.

A lease is over when this coordinator saw the same beat for a whole lease on its own monotonic
clock, with its own reads answered meanwhile. So neither a stalled or restarted Redis nor a clock
that jumps ends one: what its own reads take longer than usual does not count, and on a new
connection it watches everybody from anew, since nobody could beat meanwhile. A beat of -1 is a
supervisor's word that its child is dead.

A beat that is new at a look was raised between the look before and this one. Redis says when, and
that is believed as long as Redis's clock and ours went on alike between the two looks; so a dead
process is found a lease after its last beat, and not up to a third of a lease later.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass

from resolute.clock import Clock
from resolute.coordinator.catalog import Catalog
from resolute.coordinator.reclaiming import as_reclaim
from resolute.coordinator.surviving import surviving
from resolute.errors import ResoluteError
from resolute.priority import Priority, priority_of
from resolute.status import Code
from resolute.store import dead, nodes, registry, streams
from resolute.store.connection import Address
from resolute.store.keys import Partition
from resolute.store.script import GROUP_COORDINATORS, GROUP_WORKERS, pack
from resolute.store.store import Store

log = logging.getLogger(__name__)

MARGIN = 0.05  # s after the end of a lease at which it is looked at
SHORTEST = 0.1  # s between looks
OTHER_LANES = 8  # looks at consumers, of which one is at those of high and low lanes too
CLOCKS_ALIKE = 0.5  # s by which two clocks may differ over a third of a lease, and be believed


@dataclass(slots=True)
class Seen:
    """A beat, and since when (monotonic s) it has been this one."""

    beat: int | None
    since: float


class Leases:
    """Watches the beats of all processes and reclaims the nodes of those whose lease is over."""

    def __init__(
        self, store: Store, catalog: Catalog, clock: Clock, name: str, lease: float
    ) -> None:
        self._store = store
        self._catalog = catalog
        self._clock = clock
        self._name = name
        self._lease = lease
        self._seen: dict[str, Seen] = {}
        self._last_read = float("-inf")
        self._last_server_time = 0.0
        self._epoch: tuple[Address, int] | None = None  # none read yet
        self._consumers_read = float("-inf")
        self._consumer_reads = 0
        self._known_consumers: dict[bool, set[str]] = {False: set(), True: set()}  # of other lanes?
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        """Watch until cancelled: three looks a lease, one when a lease ends, one whenever woken."""
        while True:
            self._woken.clear()
            with surviving(log, "watching leases"):
                await self.run_once()
            try:
                async with asyncio.timeout(self.pause()):
                    await self._woken.wait()
            except TimeoutError:
                pass

    def pause(self) -> float:
        """Seconds until the next look: a third of a lease, or until the next one may be over."""
        ends = [
            seen.since + self._span(process)
            for process, seen in self._seen.items()
            if seen.beat is not None and process != self._name
        ]
        # One that is over and still there could not be cleared away: it is looked at in its turn.
        following = min((end for end in ends if end > self._last_read), default=float("inf"))
        left = following + MARGIN - self._clock.monotonic()
        return max(SHORTEST, min(self._lease / 3, left))

    def is_over(self, process: str) -> bool:
        """Whether a process was without a beat, or unregistered, for a whole lease."""
        seen = self._seen.get(process)
        if seen is None:
            self._seen[process] = Seen(None, self._clock.monotonic())
            return False
        if seen.beat == registry.LEASE_OVER:
            return True
        # Judged at the last answered look: without one, silence may be ours.
        return self._last_read - seen.since >= self._span(process)

    def _span(self, process: str) -> float:
        """A process's lease in seconds: ours, or its own where it was started with a longer one."""
        info = self._catalog.processes.get(process)
        return max(self._lease, info.lease) if info else self._lease

    async def run_once(self) -> int:
        """One look; how many processes were found dead and cleared away."""
        beats = await registry.read_beats(self._store)
        await self._catalog.refresh()
        consumers = await self._recent_consumers()
        self._observe(beats, consumers)
        cleared = 0
        for process in sorted({*beats.counts, *self._catalog.processes, *consumers}):
            if process != self._name and await self._end(process):
                cleared += await self._clear(process)
        return cleared

    async def _end(self, process: str) -> bool:
        """End a lease that is over, if nobody beat since it was looked at; whether it is ended.

        A process that was cut off may be back by now, and have begun nodes: what it has is taken
        from it only once it cannot beat any more.
        """
        if not self.is_over(process):
            return False
        seen = self._seen[process]
        if seen.beat == registry.LEASE_OVER:
            return True
        if not await registry.end_silent_lease(self._store, process, seen.beat):
            return False
        seen.beat = registry.LEASE_OVER
        return True

    def _observe(self, beats: registry.Beats, consumers: Iterable[str]) -> None:
        now = self._clock.monotonic()
        span = now - self._last_read
        is_new_link = self._store.registry_epoch != self._epoch
        gap = max(0.0, span - self._lease / 3 - MARGIN)  # beyond what lies between two looks
        credible = abs(beats.now - self._last_server_time - span) < CLOCKS_ALIKE
        self._last_read, self._last_server_time = now, beats.now
        self._epoch = self._store.registry_epoch
        for process in {*beats.counts, *self._catalog.processes, *consumers}:
            beat = beats.counts.get(process)
            seen = self._seen.get(process)
            if seen is None or (is_new_link and beat != registry.LEASE_OVER):
                self._seen[process] = Seen(beat, now)
            elif seen.beat != beat:
                age = min(beats.ages.get(process, 0.0), span) if credible else 0.0
                self._seen[process] = Seen(beat, now - age)
            else:
                seen.since += gap
        for process in [p for p in self._seen if p not in beats.counts and p not in consumers]:
            self._seen[process].since = now if is_new_link else self._seen[process].since + gap
            if now - self._seen[process].since > 10 * self._lease:
                del self._seen[process]

    async def _recent_consumers(self) -> set[str]:
        """The consumers of all streams, read once a lease, those of high and low lanes more seldom.

        Whoever reads one of those reads the normal lane too, and nearly always is found there.
        """
        now = self._clock.monotonic()
        if now - self._consumers_read >= self._lease:
            self._known_consumers[False] = await self._consumers(others=False)
            if self._consumer_reads % OTHER_LANES == 0:
                self._known_consumers[True] = await self._consumers(others=True)
            self._consumer_reads += 1
            self._consumers_read = now
        return self._known_consumers[False] | self._known_consumers[True]

    async def _consumers(self, *, others: bool) -> set[str]:
        """Every consumer of every queue stream and inbox, registered or not.

        With `others` it is those of the lanes that are not for normal nodes.
        """
        readers: list[tuple[str, str]] = []
        names = {
            name
            for name in self._catalog.queue_names()
            if (priority_of(name) is not Priority.NORMAL) == others
        }
        for partition in self._store.keys.partitions:
            if not others:
                readers.append((partition.inbox, GROUP_COORDINATORS))
            readers += [(partition.queue(name), GROUP_WORKERS) for name in names]
        found = await streams.consumers(self._store, readers)
        return {name for counts in found for name in counts}

    async def _clear(self, process: str) -> int:
        """Reclaim what a dead process had, then forget it; 1 when nothing was left."""
        left = 0
        for partition in self._store.keys.partitions:
            for queue in self._queues_of(process):
                left += await self._clear_stream(partition, queue, process)
            common = pack(GROUP_COORDINATORS, process)
            code = await self._store.call("drop_consumer", [partition.inbox], common)
            left += nodes.code_of(code) != "OK"
        if left:
            return 0
        if not await registry.unregister(self._store, process):
            return 0
        log.info("process %s has left; nothing of it is left behind", process)
        self._seen.pop(process, None)
        for known in self._known_consumers.values():
            known.discard(process)
        return 1

    def _queues_of(self, process: str) -> set[str]:
        info = self._catalog.processes.get(process)
        if info is None:
            return self._catalog.queue_names()
        return set(info.queues)

    async def _clear_stream(self, partition: Partition, queue: str, process: str) -> int:
        stream = partition.queue(queue)
        after = "-"
        while ids := await streams.pending_of(self._store, stream, GROUP_WORKERS, process, after):
            payloads = await streams.read_entries(self._store, stream, ids)
            await self._reclaim(partition, queue, process, payloads)
            after = ids[-1]
        common = pack(GROUP_WORKERS, process)
        code = await self._store.call("drop_consumer", [stream], common)
        return int(nodes.code_of(code) != "OK")

    async def _reclaim(
        self, partition: Partition, queue: str, process: str, payloads: dict[str, bytes | None]
    ) -> None:
        lost: list[nodes.Reclaim] = []
        useless: list[str] = []
        hopeless: list[tuple[str, str]] = []
        for entry_id, payload in payloads.items():
            if payload is None:
                useless.append(entry_id)
                continue
            try:
                held = nodes.Held.read(partition, queue, entry_id, payload)
                if held.entry.is_query:
                    useless.append(entry_id)
                    continue
                plan = await self._catalog.plan(held.entry.plan)
                if plan is None:
                    raise LookupError(f"plan {held.entry.plan} is not stored")
                lost.append(as_reclaim(plan, held, process, held.lane))
            except (ValueError, LookupError, ResoluteError) as error:
                hopeless.append((entry_id, str(error)))
        for batch in nodes.chunks(lost):
            codes = await nodes.reclaim(self._store, partition, batch)
            hopeless += [
                (one.held.id, "damaged run")
                for one, code in zip(batch, codes, strict=True)
                if code == Code.ERROR
            ]
        for _, why in hopeless:
            log.error("dead letter from %s: %s", partition.queue(queue), why)
        await dead.bury_entries(self._store, partition, queue, hopeless)
        await streams.acknowledge(self._store, partition.queue(queue), GROUP_WORKERS, useless)
