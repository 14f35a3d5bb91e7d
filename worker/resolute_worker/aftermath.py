"""After a process was killed on purpose: its overdue node timed out, the others are handed back."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import msgspec

from resolute.engine.judging import retry_delay, silence_error, timeout_error
from resolute.errors import ErrorInfo
from resolute.model.messages import Entry
from resolute.model.plan import NodePlan, Plan
from resolute.priority import lanes_of
from resolute.store import nodes, registry, streams
from resolute.store.keys import Partition
from resolute.store.nodes import Failure, Held, Return
from resolute.store.script import GROUP_WORKERS
from resolute.store.store import Store
from resolute_worker.shared import Overdue

log = logging.getLogger(__name__)


async def settle_killed(store: Store, process: str, queue: str, overdue: Sequence[Overdue]) -> None:
    """Settle what a killed process had pending, in its name: no crash is counted.

    `overdue` are the nodes for which it was killed.
    """
    info = (await registry.processes(store)).get(process)
    late = {(one.partition, one.queue, one.entry): one for one in overdue}
    plans: dict[str, Plan | None] = {}
    for partition in store.keys.partitions:
        for name in info.queues if info else lanes_of(queue):
            await _settle_stream(store, process, partition, name, plans, late)


async def _settle_stream(
    store: Store,
    process: str,
    partition: Partition,
    name: str,
    plans: dict[str, Plan | None],
    late: Mapping[tuple[int, str, str], Overdue],
) -> None:
    stream = partition.queue(name)
    after = "-"
    while ids := await streams.pending_of(store, stream, GROUP_WORKERS, process, after):
        payloads = await streams.read_entries(store, stream, ids)
        failures: list[Failure] = []
        returns: list[Return] = []
        for entry_id, payload in payloads.items():
            try:
                held = Held.read(partition, name, entry_id, payload)
                if held.entry.is_query:
                    continue  # a coordinator puts it away, too
                plan = await _plan_of(store, held.entry.plan, plans)
                node = _node_of(plan, held.entry)
            except (ValueError, LookupError):
                continue  # deleted or damaged: a coordinator puts it away
            overdue = late.get((partition.number, held.queue, entry_id))
            if plan is not None and node is not None and overdue is not None:
                failures.append(_timed_out(held, plan, node, overdue))
            else:
                returns.append(Return(held, held.lane))
        for batch in nodes.chunks(failures):
            await nodes.fail(store, process, batch)
        for batch in nodes.chunks(returns):
            await nodes.give_back(store, process, batch)
        after = ids[-1]


async def _plan_of(store: Store, name: str, known: dict[str, Plan | None]) -> Plan | None:
    """Also those of other teams' flows, whose nodes it ran by name."""
    if name not in known:
        known[name] = await registry.load_plan(store, name)
    return known[name]


def _node_of(plan: Plan | None, entry: Entry) -> NodePlan | None:
    if plan is None:
        return None
    node = plan.node(entry.pc, entry.index)
    return node.compensation if entry.undo else node


def _timed_out(held: Held, plan: Plan, node: NodePlan, overdue: Overdue) -> Failure:
    error = silence_error(node) if overdue.is_silent else timeout_error(node)
    info = ErrorInfo(type(error).__name__, str(error), node=node.name)
    delay = retry_delay(node, held.entry.attempt, error)
    entry = held.entry
    key = node.key if entry.undo else plan.key(entry.pc, entry.index)
    return Failure(held, key, held.lane, msgspec.msgpack.encode(info), delay, node.best_effort)
