"""Ended runs are deleted when their time is over, or when their flow keeps only so many."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence

from resolute.coordinator.catalog import Catalog
from resolute.coordinator.surviving import surviving
from resolute.coordinator.ticks import PassedTicks
from resolute.model.plan import RetentionPlan
from resolute.status import TERMINAL, RunStatus
from resolute.store import ended
from resolute.store.keys import Partition
from resolute.store.store import Store

log = logging.getLogger(__name__)

LEAST_MS = 60_000  # a run that ended less than this ago is never one too many


class Retention:
    """One pass each `period` seconds; a pass goes on while there is more."""

    def __init__(self, store: Store, catalog: Catalog, retention_ms: int) -> None:
        self._store = store
        self._catalog = catalog
        self._retention_ms = retention_ms
        self._ticks = PassedTicks(store, catalog)
        self.period = _period(retention_ms)

    async def run(self) -> None:
        """Delete until cancelled."""
        while True:
            await asyncio.sleep(self.period)
            with surviving(log, "retention"):
                await self.run_once()

    async def run_once(self) -> int:
        """Delete what is past its retention; how many runs."""
        await self._catalog.refresh()
        kept = await self._kept()
        times = [self._retention_ms, *(after for after, _ in kept.values())]
        self.period = _period(min(times))
        dropped = 0
        for partition in self._store.keys.partitions:
            dropped += await self._drop_old(partition, kept)
        most = {flow: most for flow, (_, most) in kept.items() if most is not None}
        if most:
            await self._ticks.look()
        for flow, keep_last in most.items():
            dropped += await self._drop_beyond(flow, keep_last)
        # Of a flow that nobody knows it is not known how long its runs are kept.
        for partition in self._store.keys.partitions:
            dropped += await self._drop_any(partition, max(times))
        return dropped

    async def _kept(self) -> dict[str, tuple[int, int | None]]:
        """For how many ms, and how many, of each flow of which that is known."""
        found: dict[str, tuple[int, int | None]] = {}
        for flow in self._catalog.offers:
            match await self._catalog.retention(flow, self._retention_ms):
                case RetentionPlan(after_ms=int(after), keep_last=most):
                    found[flow] = (after, most)
                case _:
                    pass
        return found

    async def _drop_old(
        self, partition: Partition, kept: Mapping[str, tuple[int, int | None]]
    ) -> int:
        """Delete what ended longer ago than its flow's retention."""
        dropped = 0
        wanted = [(flow, status, after) for flow, (after, _) in kept.items() for status in TERMINAL]
        while wanted:
            indexes = [(partition.ended(status, flow), after) for flow, status, after in wanted]
            found = await ended.list_ended(self._store, partition, indexes)
            more: list[tuple[str, RunStatus, int]] = []
            for (flow, status, after), one in zip(wanted, found, strict=True):
                gone = await ended.drop(self._store, partition, status, flow, one.runs)
                dropped += gone
                if one.is_cut and gone:  # else the same would be the oldest again
                    more.append((flow, status, after))
            wanted = more
        return dropped

    async def _drop_beyond(self, flow: str, keep_last: int) -> int:
        """Delete the oldest of what a flow has ended too many, over all partitions.

        What another coordinator deletes meanwhile is the oldest too. So a count that still has it
        is too high by runs that come first here, and none is deleted in their stead.
        """
        dropped = 0
        while True:
            count, oldest = await self._oldest(flow)
            beyond = oldest[: min(max(0, count - keep_last), ended.MAX_RUNS)]
            places: dict[tuple[Partition, RunStatus], list[tuple[int, str]]] = defaultdict(list)
            for run, partition, status in beyond:
                if self._ticks.may_forget(flow, run[1]):
                    places[partition, status].append(run)
            gone = 0
            for (partition, status), runs in places.items():
                gone += await ended.drop(self._store, partition, status, flow, runs)
            if not gone:
                return dropped
            dropped += gone

    async def _oldest(
        self, flow: str
    ) -> tuple[int, Sequence[tuple[tuple[int, str], Partition, RunStatus]]]:
        """How many ended runs a flow has, and those that ended first: long enough ago."""
        count = 0
        oldest: list[tuple[tuple[int, str], Partition, RunStatus]] = []
        for partition in self._store.keys.partitions:
            indexes = [(partition.ended(status, flow), LEAST_MS) for status in TERMINAL]
            found = await ended.list_ended(self._store, partition, indexes)
            for status, one in zip(TERMINAL, found, strict=True):
                count += one.count
                oldest += [(run, partition, status) for run in one.runs]
        return count, sorted(oldest, key=lambda one: one[0])

    async def _drop_any(self, partition: Partition, retention_ms: int) -> int:
        dropped = 0
        for status in TERMINAL:
            while True:
                count = await ended.drop_ended(self._store, partition, status, retention_ms)
                dropped += count
                if not count:
                    break
        return dropped


def _period(retention_ms: int) -> float:
    return max(0.5, min(30.0, retention_ms / 1000 / 10))
