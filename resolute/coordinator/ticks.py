"""Which runs of schedules may be deleted early: those that no coordinator can start again.

A tick is started once because its run is there, or because the cursor of its schedule has passed
it. Between the two writes a coordinator may stall; and another may have read the cursor just before
it moved. The latter is refused by the script once its look is FRESH_LOOK_MS old, by clocks that may
differ by as much where the cursors are on another node. So a run may be deleted when its cursor had
passed it twice that long ago: who could still start it finds it there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from resolute.coordinator.catalog import Catalog
from resolute.model.plan import Plan
from resolute.model.triggers import tick_of
from resolute.store import registry
from resolute.store.runs import FRESH_LOOK_MS
from resolute.store.store import Store

LONG_AGO_MS = 2 * FRESH_LOOK_MS


class Look(NamedTuple):
    """Cursors and plans as they were at a time of Redis (ms), or before."""

    at: int
    cursors: Mapping[str, int]
    plans: Mapping[str, Plan]


class PassedTicks:
    """What was looked at long enough ago. `look` from time to time."""

    def __init__(self, store: Store, catalog: Catalog) -> None:
        self._store = store
        self._catalog = catalog
        self._old = Look(0, {}, {})
        self._next: Look | None = None

    async def look(self) -> None:
        """Read cursors and plans; what was read long enough ago counts from now on."""
        await self._catalog.refresh()
        plans = {
            flow: plan
            for flow in self._catalog.offers
            if (plan := await self._catalog.offered_plan(flow)) is not None
        }
        cursors = await registry.tick_cursors(self._store)
        now = await registry.server_ms(self._store)  # after that: they were so by then
        if self._next is not None and now - self._next.at > LONG_AGO_MS:
            self._old, self._next = self._next, None
        self._next = self._next or Look(now, cursors, plans)

    def may_forget(self, flow: str, run_id: str) -> bool:
        """Whether a run is for no tick, or for one that was passed long enough ago."""
        tick = tick_of(run_id, flow)
        if tick is None:
            return True
        index, tick_ms = tick
        plan = self._old.plans.get(flow)
        if plan is None or index >= len(plan.schedules):
            return plan is not None
        return self._old.cursors.get(registry.tick_field(flow, index, plan), 0) >= tick_ms
