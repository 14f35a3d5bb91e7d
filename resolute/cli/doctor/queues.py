"""Queues: what waits in them, for how long, and who reads them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, cast

import msgspec

from resolute.cli.doctor.findings import Finding, Severity
from resolute.cli.doctor.processes import ProcessRow
from resolute.cli.live import Situation, all_nodes, id_ms, queues_of
from resolute.cli.output import counted
from resolute.client import Client
from resolute.durations import humanize
from resolute.priority import Priority, lane_of
from resolute.store.connection import Command, ServerReply
from resolute.store.keys import Partition
from resolute.store.registry import named_stream
from resolute.store.script import GROUP_WORKERS
from resolute.store.store import Store

LONG_WAIT = 30.0  # s in a queue that has workers


class QueueRow(msgspec.Struct, frozen=True):
    """A lane of a queue over all partitions; with `plan`, those of the queue's nodes that need that
    plan, or with ``!name`` a worker that offers the node by name.

    `ready` nodes nobody took yet (the lag), `taken` ones a process has and did not acknowledge;
    the ages, in seconds, are of the oldest of each.
    """

    queue: str
    plan: str
    ready: int
    taken: int
    ready_age: float
    taken_age: float
    readers: int
    priority: Priority = Priority.NORMAL


Name = tuple[str, str]


async def queue_names(client: Client, situation: Situation, plans: Iterable[str]) -> list[Name]:
    """Every queue that a worker reads or a plan names, and each plan's stream of it."""
    pairs: set[Name] = {(worker.queue, "") for worker in situation.workers}
    for worker in situation.workers:
        pairs |= {(worker.queue, plan) for plan in worker.flows.values()}
        pairs |= {(worker.queue, named_stream(name)) for name in worker.nodes}
    bases = {queue for queue, _ in pairs}
    for plan_hash in plans:
        plan = await client.directory.plan(plan_hash)
        if plan is None:
            continue
        named = {queue for queue in queues_of(plan, plan.queue) if queue}
        pairs |= {(queue, "") for queue in named}
        pairs |= {(queue, plan_hash) for queue in named | bases}
        pairs |= {
            (queue, named_stream(node.name))
            for node in all_nodes(plan)
            for queue in ({node.queue} if node.queue else bases)
            if plan.named
        }
    return sorted(pairs)


async def read_queues(
    store: Store, names: Sequence[Name], situation: Situation, silent: set[str]
) -> list[QueueRow]:
    """The state of each queue that is read or has work, and of its lanes that have work."""
    by_lane: dict[tuple[Name, Priority], list[QueueRow]] = defaultdict(list)
    for partition in store.keys.partitions:
        for name in names:
            for priority in [Priority.NORMAL] if name[1] else Priority:
                row = await _read_stream(store, partition, name, priority, situation.now)
                by_lane[name, priority].append(row)
    rows = [_summed(parts, situation, silent) for parts in by_lane.values()]
    return [
        row
        for row in rows
        if row.ready or row.taken or (not row.plan and row.priority is Priority.NORMAL)
    ]


async def _read_stream(
    store: Store, partition: Partition, name: Name, priority: Priority, now: float
) -> QueueRow:
    queue, plan = name
    stream = partition.queue(lane_of(queue, priority), plan)
    commands: list[Command] = [
        ("XLEN", stream),
        ("XINFO", "GROUPS", stream),
        ("XPENDING", stream, GROUP_WORKERS),
    ]
    length, groups, pending = await store.try_all(commands)
    if isinstance(length, ServerReply):
        raise length
    group = _group(groups)
    last = str(group.get("last-delivered-id", b"0-0"), "ascii")
    taken = int(group.get("pending", 0))
    lag = group.get("lag")
    # A lag is unknown after entries were deleted; what is neither taken nor deleted is ready.
    ready = int(lag) if lag is not None else max(0, int(length) - taken)
    oldest: Any = None
    if ready:
        oldest = await store.execute("XRANGE", stream, f"({last}", "+", "COUNT", 1)
    oldest_taken = pending[1] if not isinstance(pending, ServerReply) and taken else None
    return QueueRow(
        queue,
        plan,
        ready=ready,
        taken=taken,
        ready_age=max(0.0, now - id_ms(oldest[0][0]) / 1000) if oldest else 0.0,
        taken_age=max(0.0, now - id_ms(oldest_taken) / 1000) if oldest_taken else 0.0,
        readers=0,
        priority=priority,
    )


def _group(reply: Any) -> dict[str, Any]:
    """The workers' group in a reply of XINFO GROUPS; empty where there is none, or no stream."""
    if isinstance(reply, ServerReply):
        return {}
    for row in cast("list[list[Any]]", reply):
        fields = {str(k, "ascii"): v for k, v in zip(row[::2], row[1::2], strict=True)}
        if fields.get("name") == GROUP_WORKERS.encode():
            return fields
    return {}


def _summed(parts: Sequence[QueueRow], situation: Situation, silent: set[str]) -> QueueRow:
    """One lane over all partitions."""
    queue, plan, priority = parts[0].queue, parts[0].plan, parts[0].priority
    readers = [
        worker
        for worker in situation.workers
        if worker.name not in silent
        and worker.queue == queue
        and (not plan or f"{queue}@{plan}" in worker.queues)
    ]
    return QueueRow(
        queue,
        plan,
        ready=sum(part.ready for part in parts),
        taken=sum(part.taken for part in parts),
        ready_age=max(part.ready_age for part in parts),
        taken_age=max(part.taken_age for part in parts),
        readers=len(readers),
        priority=priority,
    )


def check_queues(rows: Sequence[QueueRow], processes: Sequence[ProcessRow]) -> Iterator[Finding]:
    """Queues with work and nobody to do it, or not fast enough."""
    for row in rows:
        lane = f", {row.priority}" if row.priority is not Priority.NORMAL else ""
        name = f"queue {row.queue}{lane}"
        nodes = counted(row.ready, "node")
        waits = f"{nodes} ready, the oldest for {humanize(row.ready_age)}"
        if row.ready and not row.readers:
            yield _unread(row, name, waits)
        elif row.ready_age > LONG_WAIT:
            slots = sum(p.slots for p in processes if p.queue == row.queue and p.beats)
            text = f"{waits}: its {counted(slots, 'slot')} are not enough"
            advice = "start more workers, or raise --processes or --concurrency"
            yield Finding(name, Severity.WARNING, text, advice)
        elif not row.plan and not row.readers:
            advice = f"start resolute-worker --queue {row.queue} --app APP before a run needs it"
            yield Finding(name, Severity.WARNING, "empty, and no worker reads it", advice)
        elif not row.plan:
            ready = waits if row.ready else "no nodes ready"
            taken = f"{row.taken:,} running"
            age = f", the oldest for {humanize(row.taken_age)}" if row.taken else ""
            yield Finding(name, Severity.OK, f"{ready}; {taken}{age}")


def _unread(row: QueueRow, name: str, waits: str) -> Finding:
    if not row.plan:
        advice = f"start resolute-worker --queue {row.queue} --app APP"
        return Finding(name, Severity.PROBLEM, f"{waits}, and no worker reads it", advice)
    if row.plan.startswith(named_stream("")):
        node = row.plan.removeprefix(named_stream(""))
        text = f"{waits}, of node {node}, which no worker that lives offers by name"
        return Finding(name, Severity.PROBLEM, text, "start the worker of the team that has it")
    return Finding(
        name,
        Severity.PROBLEM,
        f"{waits}, of plan {row.plan}, which no worker that lives offers",
        "start a worker of the release that has this plan, or terminate these runs",
    )
