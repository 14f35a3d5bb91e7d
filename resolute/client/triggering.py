"""Flows that something outside starts: a webhook's delivery, a signal."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from resolute.client.directory import Directory
from resolute.errors import UnknownTrigger
from resolute.model.claims import Debounce, Unique, of_plan
from resolute.model.plan import Plan, trigger_key
from resolute.priority import Priority
from resolute.store import registry
from resolute.store.store import Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Startable:
    """A flow as it was offered last, and the queue that a run of it would have."""

    flow: str
    queue: str
    plan: Plan

    def priority_by(self, kind: str, name: str) -> Priority:
        """The priority of a run that this trigger starts."""
        return Priority(self.plan.trigger_priorities.get(trigger_key(kind, name), Priority.NORMAL))

    def by(self, kind: str, name: str) -> Unique | Debounce | None:
        """How the runs that this trigger starts share a key, None: they do not."""
        key = trigger_key(kind, name)
        found = next((one for one in self.plan.starts if one.trigger == key), None)
        return of_plan(found) if found is not None else None


async def startable(store: Store, directory: Directory) -> list[Startable]:
    """All flows that were ever offered, by name; those whose plan cannot be read are left out."""
    found: list[Startable] = []
    offers = await registry.offered_flows(store)
    for flow, offer in sorted(offers.items()):
        try:
            plan = await directory.plan(offer.plan)
        except ValueError as error:  # of a later release: the others are served
            log.warning("the plan of flow %r cannot be read: %s", flow, error)
            continue
        if plan is not None:
            found.append(Startable(flow, plan.queue or offer.queue, plan))
    return found


async def started_by(store: Store, directory: Directory, signal: str) -> Sequence[Startable]:
    """The flows that a signal starts. Raises UnknownTrigger where there is none."""
    flows = await startable(store, directory)
    found = [one for one in flows if signal in one.plan.started_by]
    if not found:
        known = sorted({name for one in flows for name in one.plan.started_by})
        raise UnknownTrigger(signal, known)
    return found


def run_id_of(flow: str, kind: str, origin: str) -> str:
    """The same for the same origin, and for no other, whatever characters that has."""
    return f"{flow[:100]}:{kind}:{hashlib.sha256(origin.encode()).hexdigest()[:32]}"
