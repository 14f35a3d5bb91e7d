"""Cron: every tick starts a run whose id is the tick, so that it starts once."""

from __future__ import annotations

import asyncio
import logging

from resolute.coordinator.catalog import Catalog
from resolute.coordinator.surviving import surviving
from resolute.model.claims import if_running_of
from resolute.model.plan import Plan, trigger_key
from resolute.model.triggers import latest_tick, next_tick, tick_id
from resolute.priority import lane_of
from resolute.status import Code
from resolute.store import claims, registry, runs
from resolute.store.keys import schedule_claim
from resolute.store.store import Store

log = logging.getLogger(__name__)

MAX_WAIT = 5.0  # s
STALE_WAIT = 1.0  # s until the next look, where this one was too old for a start


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
        looked = await registry.server_ms(self._store)  # before all that a start relies on
        now = looked / 1000
        await self._catalog.refresh()
        flows = {flow: plan for flow in self._catalog.offers if (plan := await self._plan(flow))}
        if not flows:
            return 0, MAX_WAIT
        cursors = await registry.tick_cursors(self._store)
        started, wait = 0, MAX_WAIT
        for flow, plan in flows.items():
            for index, schedule in enumerate(plan.schedules):
                with surviving(log, f"schedule {schedule.cron!r} of flow {flow!r}"):
                    code = await self._start_due(flow, plan, index, looked, cursors)
                    started += code == Code.OK
                    if code == Code.STALE:  # it took too long to come here: look again
                        log.warning("flow %r: its tick waits for a fresh look", flow)
                        wait = min(wait, STALE_WAIT)
                        continue
                    following = next_tick(schedule.cron, schedule.timezone, now)
                    wait = min(wait, following - now)
        return started, max(wait, 0.01)

    async def _plan(self, flow: str) -> Plan | None:
        """The plan of a flow that has schedules."""
        plan_hash = self._catalog.pin(flow)
        try:
            plan = await self._catalog.plan(plan_hash) if plan_hash else None
        except ValueError as error:
            log.warning("the plan of flow %r cannot be read: %s", flow, error)
            return None
        return plan if plan and plan.schedules else None

    async def _start_due(
        self, flow: str, plan: Plan, index: int, looked: int, cursors: dict[str, int]
    ) -> str | None:
        """Start the latest tick, if it was not; ticks missed before it are not made up for."""
        schedule = plan.schedules[index]
        field = registry.tick_field(flow, index, plan)
        tick = latest_tick(schedule.cron, schedule.timezone, looked / 1000)
        tick_ms = round(tick * 1000)
        if tick_ms <= cursors.get(field, looked):
            return None
        queue = plan.queue or self._catalog.offers[flow].queue
        lane = lane_of(queue, plan.trigger_priorities.get(trigger_key("schedule", index), ""))
        start = runs.Start(tick_id(flow, index, tick), flow, lane, schedule.input, tick_ms, looked)
        code = await self._start(start, plan, index)
        if code != Code.STALE:
            await registry.move_tick_cursor(self._store, field, tick_ms)
        return code

    async def _start(self, start: runs.Start, plan: Plan, index: int) -> str:
        own = (plan.retention.after_ms if plan.retention else None) or self._retention_ms
        retention_ms = min(own, self._retention_ms)
        keys, trigger = self._store.keys, trigger_key("schedule", index)
        rule = next((one for one in plan.starts if one.trigger == trigger), None)
        if rule is None:
            partition = keys.of(start.id)
            code = (await runs.start(self._store, partition, [start], retention_ms))[0]
        else:
            partition = keys.of_key(start.flow, trigger)  # that of all its runs
            start.id = claims.placed_id(keys, partition, start.id)
            claim = runs.Claim(schedule_claim(start.flow, index), if_running_of(rule))
            code, other = await claims.start(self._store, partition, start, claim, retention_ms)
            if code == Code.TAKEN:
                log.info("tick %s is skipped: run %s has not ended", start.id, other)
                return code
        if code not in (Code.OK, Code.EXISTS, Code.STALE):
            log.error("tick %s was not started: %s", start.id, code)
        return code
