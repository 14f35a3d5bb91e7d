"""Timers that are due go back to their streams, by the time of Redis."""

from __future__ import annotations

import asyncio
import logging

from resolute.coordinator.surviving import surviving
from resolute.status import Code
from resolute.store import transitions
from resolute.store.connection import backoff
from resolute.store.nodes import chunks
from resolute.store.store import Store

log = logging.getLogger(__name__)

MAX_WAIT = 5.0  # s


class Timers:
    """Sleeps until the next timer that it knows of; `wake` says there may be an earlier one."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def run(self) -> None:
        """Release what is due until cancelled."""
        failures = 0
        while True:
            self._woken.clear()
            wait = backoff(failures)
            failures += 1
            with surviving(log, "timers"):
                _, wait = await self.run_once()
                failures = 0
            try:
                async with asyncio.timeout(max(0.0, min(wait, MAX_WAIT))):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def run_once(self) -> tuple[int, float]:
        """Release what is due; how many, and the seconds until the next."""
        released, wait = 0, MAX_WAIT
        for partition in self._store.keys.partitions:
            due, strange, following = await transitions.due_timers(self._store, partition)
            for batch in chunks(due):
                codes = await transitions.release_due(self._store, partition, batch)
                released += len(batch)
                # Of runs that are damaged: the reconciler sets them again once they are put right.
                hopeless = [t.member for t, c in zip(batch, codes, strict=True) if c == Code.ERROR]
                if hopeless:
                    log.error("dropping %d timers of damaged runs: %r", len(hopeless), hopeless[:3])
                    await self._store.execute("ZREM", partition.timers, *hopeless)
            if strange:
                log.error("dropping %d timers that are none: %r", len(strange), strange[:3])
                await self._store.execute("ZREM", partition.timers, *strange)
            if following is not None:
                wait = min(wait, following)
        return released, wait
