"""Timers that are due, by the time of Redis: nodes go back to their streams, runs go on."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from resolute.coordinator.surviving import surviving
from resolute.errors import ErrorInfo
from resolute.status import Code, TimerKind
from resolute.store import transitions
from resolute.store.connection import backoff
from resolute.store.keys import Partition
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
                codes = await self.fire(partition, batch)
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

    async def fire(self, partition: Partition, timers: Sequence[transitions.DueTimer]) -> list[str]:
        """Do what each timer is for; a code for each."""
        of_nodes = [timer for timer in timers if timer.kind is TimerKind.NODE]
        of_runs = [(timer, error_of(timer)) for timer in timers if timer.kind is not TimerKind.NODE]
        codes: dict[bytes, str] = {}
        if of_nodes:
            found = await transitions.release_due(self._store, partition, of_nodes)
            codes.update(zip((timer.member for timer in of_nodes), found, strict=True))
        if of_runs:
            found = await transitions.fire(self._store, partition, of_runs)
            codes.update(zip((timer.member for timer, _ in of_runs), found, strict=True))
        return [codes[timer.member] for timer in timers]


def error_of(timer: transitions.DueTimer) -> ErrorInfo:
    """What a run fails with whose timer this is."""
    if timer.kind is TimerKind.DEADLINE:
        return ErrorInfo("DeadlineExceeded", "the run did not end within its deadline")
    message = f"gate {timer.queue!r}: no signal came in time"
    return ErrorInfo("GateTimeout", message, node=timer.queue)
