"""What the coordinator knows of the namespace: plans, live processes, which plan to pin."""

from __future__ import annotations

import logging

from resolute.clock import Clock
from resolute.model.plan import Plan, RetentionPlan
from resolute.priority import lanes_of
from resolute.store import registry
from resolute.store.store import Store

log = logging.getLogger(__name__)

FRESH = 0.1  # s; for so long a look at the registry is good enough


class Catalog:
    """Plans never change, so they are kept; the registry is read again when its version grew."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._plans: dict[str, Plan] = {}
        self._version = -1
        self._looked = float("-inf")
        self.processes: dict[str, registry.ProcessInfo] = {}
        self.offers: dict[str, registry.FlowOffer] = {}

    async def plan(self, plan_hash: str) -> Plan | None:
        """The plan of that hash; None where nobody stored it."""
        plan = self._plans.get(plan_hash)
        if plan is None:
            plan = await registry.load_plan(self._store, plan_hash)
            if plan is not None:
                self._plans[plan_hash] = plan
        return plan

    async def refresh(self, *, exact: bool = False) -> None:
        """Read the registry if it changed and the last look is no longer fresh.

        With `exact` no look is: who begins a run needs what was registered before its start, else
        it pins the run to a plan that its worker took out of service a moment ago.
        """
        now = self._clock.monotonic()
        if not exact and now - self._looked < FRESH:
            return
        version = await registry.registry_version(self._store)
        if version != self._version:
            self.processes = await registry.processes(self._store)
            self.offers = await registry.offered_flows(self._store)
            self._version = version
        self._looked = now

    def pin(self, flow: str) -> str | None:
        """The plan for a new run: of the live worker started last, else the one offered last."""
        live = [p for p in self.processes.values() if flow in p.flows]
        if live:
            return max(live, key=lambda process: (process.started, process.name)).flows[flow]
        offer = self.offers.get(flow)
        return offer.plan if offer else None

    async def offered_plan(self, flow: str) -> Plan | None:
        """The plan of a flow that was offered last; None where there is none that can be read."""
        offer = self.offers.get(flow)
        try:
            return await self.plan(offer.plan) if offer else None
        except ValueError as error:
            log.warning("the plan of flow %r cannot be read: %s", flow, error)
            return None

    async def retention(self, flow: str, default_ms: int) -> RetentionPlan | None:
        """How the runs of an offered flow are kept, as the last offer says, or else its plan.

        None where neither does: an offer of an earlier release, with a plan that cannot be read.
        `default_ms` is for what the flow leaves open.
        """
        offer = self.offers.get(flow)
        own = offer.retention if offer else None
        if own is None:
            plan = await self.offered_plan(flow)
            if plan is None:
                return None
            own = plan.retention or RetentionPlan()
        return RetentionPlan(default_ms if own.after_ms is None else own.after_ms, own.keep_last)

    def queue_names(self) -> set[str]:
        """Every queue that a live or past worker of this namespace reads, as streams are named."""
        names: set[str] = set()
        for process in self.processes.values():
            names |= set(process.queues)
        for offer in self.offers.values():
            names |= {*lanes_of(offer.queue), f"{offer.queue}@{offer.plan}"}
        return names
