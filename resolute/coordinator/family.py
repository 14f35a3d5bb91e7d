"""Runs that start runs: what a commit does of the children, and what the parent is told."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace

from resolute.engine.reading import list_of
from resolute.engine.run import Dispatch, Transition
from resolute.errors import ErrorInfo
from resolute.ids import parent_of
from resolute.model.codec import DEFAULT_MAX_PAYLOAD
from resolute.model.messages import Event
from resolute.model.plan import Children, Plan, Producer, Run, Wide, item_key
from resolute.model.references import is_stub
from resolute.model.state import NIL
from resolute.status import RunStatus
from resolute.store.keys import Partition
from resolute.store.nodes import MAX_BYTES
from resolute.store.store import Store
from resolute.store.transitions import StartChildren, StopChildren, TellParent

FIRST, READ = 20, 1000  # items read at a time: at first, and at most


def started_by(
    plan: Plan, step: Children, event: Event, dispatch: Dispatch, seq: int
) -> StartChildren:
    """The runs that a page of the step number `seq` starts."""
    ids = [step.child_id(event.flow, seq, index) for index in range(dispatch.start, dispatch.stop)]
    queue = plan.lane_at(dispatch.pc, 0, event.queue)
    forgives = step.nodes[0].best_effort
    return StartChildren(step.flow, queue, step.step, forgives, dispatch.start, ids)


def stopped_by(plan: Plan, event: Event, transition: Transition) -> StopChildren | None:
    """The runs that are told to stop, where nodes of a step are skipped that wait for such."""
    step = plan.step(event.pc)
    if not isinstance(step, Children) or transition.skip is None:
        return None
    kind = "Terminated" if transition.is_terminating else "Cancelled"
    error = ErrorInfo(kind, f"by its parent {event.flow}")
    ids = [step.child_id(event.flow, event.seq, index) for index in range(*transition.skip)]
    return StopChildren(ids, error, transition.is_terminating)


def end_of_child(
    flow_id: str, status: RunStatus, error: ErrorInfo | None, plan: Plan | None = None
) -> TellParent | None:
    """What the parent of a run that ends is told; None where it has none.

    Without a `plan` the run did not begin.
    """
    parent = parent_of(flow_id)
    if not parent:
        return None
    if status is RunStatus.COMPLETED and plan is not None:
        limit = plan.max_payload or DEFAULT_MAX_PAYLOAD
        return TellParent(parent, _results(plan), limit=limit)
    return TellParent(parent, (), f"run {flow_id} {status}" + (f": {error}" if error else ""))


async def with_list(
    store: Store, partition: Partition, flow_id: str, tell: TellParent, name: str
) -> TellParent:
    """What the parent is told, with the list `name` that a run returned put together.

    Its items do not change any more, unless the server forgets some: its step is left by the commit
    that tells it, or not at all.
    """
    key = partition.flow(flow_id)
    count = int(await store.execute("HGET", key, f"o:{name}") or 0)
    items: list[bytes] = []
    size = 3 if count < 1 << 16 else 5  # the head of an array as long as this one
    has_stubs = False
    async for item in _items(store, key, name, count):
        size += len(item)
        has_stubs = has_stubs or is_stub(item)
        if has_stubs or size <= tell.limit:  # else it is only counted
            items.append(item)
    if has_stubs and len(items) < count:
        items = [item async for item in _items(store, key, name, count)]
    return replace(tell, size=size, made=list_of(items) if len(items) == count else b"")


async def _items(store: Store, key: str, name: str, count: int) -> AsyncGenerator[bytes]:
    at, most = 0, FIRST
    while at < count:
        indices = range(at, min(count, at + most))
        fields = [f"o:{item_key(name, index)}" for index in indices]
        size = 0
        for value in await store.execute("HMGET", key, *fields):
            size += len(value or NIL)
            yield value or NIL
        at += len(indices)
        most = max(1, min(READ, 4 * most, len(indices) * MAX_BYTES // size))


def _results(plan: Plan) -> list[list[int | str]]:
    """The steps that can have been the last one of a run, and how their output is put together."""
    found: list[list[int | str]] = []
    for pc in plan.predecessors(len(plan.instructions) - 1):
        step = plan.instructions[pc]
        if not isinstance(step, Producer):
            continue
        is_map = isinstance(step, Run) and step.parallel
        kind = "map" if is_map else "list" if isinstance(step, Wide) else "one"
        found.append([pc, kind, *(node.key for node in step.nodes)])
    return found
