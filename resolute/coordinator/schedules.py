"""Cron: every tick starts a run whose id is the tick, so that it starts once."""

from __future__ import annotations

import asyncio
import logging

from resolute.coordinator.catalog import Catalog
from resolute.coordinator.surviving import surviving
from resolute.model.triggers import latest_tick, next_tick, tick_id
from resolute.status import Code
from resolute.store import registry, runs
from resolute.store.store import Store

log = logging.getLogger(__name__)

MAX_WAIT = 5.0  # s


class Schedules:
    """Starts what is due by Redis's time. Ticks missed while nobody looked are caught up by one."""

    def __init__(self, store: Store, catalog: Catalog, retention_ms: int) -> None:
        self._store = store
        self._catalog = catalog
        self._retention_ms = retention_ms

    async def run(self) -> None:
        """Start due ticks until cancelled."""
        while True:
            wait = MAX_WAIT
            with surviving(log, "schedules"):
                _, wait = await self.run_once()
            await asyncio.sleep(min(wait, MAX_WAIT))

    async def run_once(self) -> tuple[int, float]:
        """Start what is due; how many, and the seconds until the next tick."""
        await self._catalog.refresh()
        offers = self._catalog.offers
        now_ms = 0
        cursors: dict[str, int] = {}
        started, wait = 0, MAX_WAIT
        for flow in offers:
            plan_hash = self._catalog.pin(flow)
            plan = await self._catalog.plan(plan_hash) if plan_hash else None
            if plan is None or not plan.schedules:
                continue
            if not now_ms:
                now_ms = await registry.server_ms(self._store)
                cursors = await registry.tick_cursors(self._store)
            for index, schedule in enumerate(plan.schedules):
                field = registry.tick_field(flow, index, plan)
                tick = latest_tick(schedule.cron, schedule.timezone, now_ms / 1000)
                tick_ms = round(tick * 1000)
                if tick_ms > cursors.get(field, now_ms):
                    queue = plan.queue or offers[flow].queue
                    start = runs.Start(
                        tick_id(flow, index, tick), flow, queue, schedule.input, tick_ms
                    )
                    started += await self._start(start)
                    await registry.move_tick_cursor(self._store, field, tick_ms)
                following = next_tick(schedule.cron, schedule.timezone, now_ms / 1000)
                wait = min(wait, following - now_ms / 1000)
        return started, max(wait, 0.01)

    async def _start(self, start: runs.Start) -> int:
        partition = self._store.keys.of(start.id)
        code = (await runs.start(self._store, partition, [start], self._retention_ms))[0]
        if code not in (Code.OK, Code.EXISTS):
            log.error("tick %s was not started: %s", start.id, code)
        return int(code == Code.OK)
