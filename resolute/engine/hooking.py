"""Which hooks an attempt calls, and calling them so that they harm nobody. No Redis in here."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from resolute.engine.bound import CANCEL, ERROR, Bound
from resolute.errors import ErrorInfo
from resolute.model.costs import Cost
from resolute.model.flow import Notice
from resolute.model.hooks import CostEvent, FlowEvent, NodeEvent, StepEvent
from resolute.model.messages import Entry
from resolute.status import NodeStatus, RunStatus

log = logging.getLogger(__name__)

HOOK_SECONDS = 10.0  # for all hooks of one moment together

Call = Callable[[], object]


def calls_of_notice(
    entry: Entry, bound: Bound, notice: Notice, values: Sequence[bytes | None]
) -> list[Call]:
    """What a node of ours calls, which is there for that; `values` are those of its fields."""
    hook = getattr(bound.flow.hooks, notice.moment)
    if hook is None:
        return []
    run, flow, step = entry.flow, bound.flow.name, notice.step
    match notice.moment:
        case "before_flow":
            event = FlowEvent(run, flow, RunStatus.RUNNING)
        case "after_flow" if bound.undo:
            error = bound.aside(ERROR, values)
            event = FlowEvent(
                run,
                flow,
                RunStatus.CANCELLED if bound.aside(CANCEL, values) else RunStatus.FAILED,
                msgspec.msgpack.decode(error, type=ErrorInfo) if error else None,
            )
        case "after_flow":
            event = FlowEvent(run, flow, RunStatus.COMPLETED)
        case "before_step":
            event = StepEvent(run, flow, step, entry.seq, NodeStatus.RUNNING)
        case "after_step":
            event = StepEvent(run, flow, step, entry.seq, NodeStatus.COMPLETED)
    return [_call(hook, event)]


def calls_before(entry: Entry, bound: Bound, now: float) -> list[Call]:
    """What is called before the function of a node is."""
    hook = bound.flow.hooks.before_node
    if hook is None or isinstance(bound.binding, Notice):
        return []
    event = _event(entry, bound, NodeStatus.RUNNING, now)
    return [_call(hook, event)]


def calls_of_costs(entry: Entry, bound: Bound, costs: Sequence[Cost]) -> list[Call]:
    """What is called for what an attempt has spent, however it ends."""
    hook = bound.flow.hooks.on_cost
    if hook is None:
        return []
    events = (_cost_event(entry, bound, number, cost) for number, cost in enumerate(costs, 1))
    return [_call(hook, event) for event in events]


def calls_after(
    entry: Entry,
    bound: Bound,
    begun: float | None,
    now: float,
    error: bytes | None = None,
    delay: int | None = None,
) -> list[Call]:
    """What is called when an attempt has its outcome.

    `error` is the encoded one of a failed attempt, `delay` the ms until the next.
    """
    hook = bound.flow.hooks.after_node
    if hook is None or isinstance(bound.binding, Notice):
        return []
    status = NodeStatus.COMPLETED if error is None else NodeStatus.FAILED
    event = msgspec.structs.replace(
        _event(entry, bound, status, begun),
        ended=now,
        error=None if error is None else msgspec.msgpack.decode(error, type=ErrorInfo),
        retry_in=None if delay is None else delay / 1000,
    )
    return [_call(hook, event)]


def call_all(calls: Sequence[Call], name: str, until: float) -> None:
    """Call hooks of node `name` one after the other; none after `until` (monotonic s).

    Whatever one raises, SystemExit too, is logged, and the next is called.
    """
    for at, call in enumerate(calls):
        left = until - time.monotonic()
        if left <= 0:
            log.error("hooks of node %s: %d were not called, time is over", name, len(calls) - at)
            return
        try:
            answer = call()
            if inspect.isawaitable(answer):
                asyncio.run(_bounded(answer, left))
        except BaseException:
            log.exception("a hook of node %s failed", name)


async def _bounded(answer: Any, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        await answer


def _call(hook: Callable[[Any], object], event: object) -> Call:
    return lambda: hook(event)


def _event(entry: Entry, bound: Bound, status: NodeStatus, begun: float | None) -> NodeEvent:
    return NodeEvent(
        entry.flow, bound.flow.name, bound.plan.name, entry.seq, entry.index, entry.attempt,
        entry.crashes, status, begun, compensates=bound.undone.name if bound.undo else "",
    )  # fmt: skip


def _cost_event(entry: Entry, bound: Bound, number: int, cost: Cost) -> CostEvent:
    return CostEvent(
        entry.flow, bound.flow.name, bound.plan.name, entry.seq, entry.index, entry.attempt,
        entry.crashes, number, cost.amount, cost.unit, cost.labels,
    )  # fmt: skip
