"""Runs that ended longer ago than the retention are deleted."""

from __future__ import annotations

import asyncio
import logging

from resolute.coordinator.surviving import surviving
from resolute.status import TERMINAL
from resolute.store import transitions
from resolute.store.store import Store

log = logging.getLogger(__name__)


class Retention:
    """One pass each `period` seconds; a pass goes on while there is more."""

    def __init__(self, store: Store, retention_ms: int) -> None:
        self._store = store
        self._retention_ms = retention_ms
        self.period = max(0.5, min(30.0, retention_ms / 1000 / 10))

    async def run(self) -> None:
        """Delete until cancelled."""
        while True:
            await asyncio.sleep(self.period)
            with surviving(log, "retention"):
                await self.run_once()

    async def run_once(self) -> int:
        """Delete what is past its retention; how many runs."""
        dropped = 0
        for partition in self._store.keys.partitions:
            for status in TERMINAL:
                while True:
                    count = await transitions.drop_ended(
                        self._store, partition, status, self._retention_ms
                    )
                    dropped += count
                    if not count:
                        break
        return dropped
