"""Who is alive now, and whether coordinators keep up: what waiting and health are judged by."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from resolute.model.plan import NodePlan, Plan
from resolute.store import registry
from resolute.store.registry import ProcessInfo
from resolute.store.store import Store

SLOW_EVENT = 5.0  # s; an inbox event this old means that no coordinator handles it
OVERDUE = 5.0  # s; a timer this late means that no coordinator fires it


class Situation(msgspec.Struct, frozen=True):
    """A look at the registry. `now` is Redis's time; `event_age` that of the oldest inbox event.

    A process that was killed counts as live until a coordinator saw its lease end.
    """

    now: float
    workers: Sequence[ProcessInfo]
    coordinators: Sequence[ProcessInfo]
    event_age: float = 0.0

    @property
    def is_coordinated(self) -> bool:
        return bool(self.coordinators) and self.event_age < SLOW_EVENT

    def serving(self, queue: str, flow: str, plan: str) -> list[ProcessInfo]:
        """The live workers that can run a node of that plan on that queue."""
        return [w for w in self.workers if w.queue == queue and w.flows.get(flow) == plan]

    def serving_name(self, queue: str, node: str) -> list[ProcessInfo]:
        """The live workers of that queue that run a node for whoever names it."""
        return [w for w in self.workers if w.queue == queue and node in w.nodes]

    def offering(self, flow: str) -> list[ProcessInfo]:
        """The live workers that offer a flow, with whatever plan."""
        return [w for w in self.workers if flow in w.flows]

    def knows(self, process: str) -> bool:
        return any(process == worker.name for worker in self.workers)


async def read_situation(store: Store) -> Situation:
    """Look at the registry and at the inboxes."""
    now_ms = await registry.server_ms(store)
    beats = await registry.beats(store)
    live = [
        process
        for process in (await registry.processes(store)).values()
        if beats.get(process.name, registry.LEASE_OVER) != registry.LEASE_OVER
    ]
    live.sort(key=lambda process: (process.queue, process.started, process.name))
    oldest = await store.execute_all(
        [("XRANGE", p.inbox, "-", "+", "COUNT", 1) for p in store.keys.partitions]
    )
    # An event that was handled is deleted, so the first one is the oldest that was not.
    ages = [(now_ms - id_ms(entries[0][0])) / 1000 for entries in oldest if entries]
    return Situation(
        now=now_ms / 1000,
        workers=[p for p in live if p.kind == "worker"],
        coordinators=[p for p in live if p.kind == "coordinator"],
        event_age=max(0.0, *ages, 0.0),
    )


def id_ms(entry_id: bytes) -> int:
    """The time in a stream id, in ms."""
    return int(entry_id.partition(b"-")[0])


def all_nodes(plan: Plan) -> Iterable[NodePlan]:
    """Every node of a plan, compensations too."""
    for instruction in plan.instructions:
        for node in getattr(instruction, "nodes", ()):
            yield node
            if node.compensation is not None:
                yield node.compensation


def queues_of(plan: Plan, queue: str) -> set[str]:
    """The queues that a run on `queue` needs."""
    return {node.queue or queue for node in all_nodes(plan)}
