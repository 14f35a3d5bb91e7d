"""What an open run waits for: everything that has a name and a clock. Derived, never stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

from resolute.cli.live import OVERDUE, Situation
from resolute.durations import humanize
from resolute.engine.admission import read_hold
from resolute.errors import ErrorInfo
from resolute.model.messages import NodeRecord
from resolute.model.plan import Children, Gate, NodePlan, Plan, Sleep, Step
from resolute.priority import queue_of
from resolute.status import SETTLED, NodeStatus, RunStatus
from resolute.store.runs import Header

LONER_CRASHES = 2  # as a worker's reader has it: with so many behind it a node runs alone


class WaitKind(StrEnum):
    """Who or what must act next; what people must see to comes first."""

    COORDINATOR = "coordinator"
    WORKER = "worker"
    SIGNAL = "signal"
    TIME = "time"
    RATE_LIMIT = "rate_limit"
    CONCURRENCY = "concurrency"
    RETRY = "retry"
    CHILD = "child"
    RUN = "run"
    NODE = "node"
    ALONE = "alone"
    QUEUE = "queue"


class Wait(msgspec.Struct, frozen=True):
    """One thing that a run waits for; `since` and `due` are seconds of Unix time."""

    kind: WaitKind
    text: str
    node: str = ""
    process: str = ""
    queue: str = ""
    since: float | None = None
    due: float | None = None


def find_waits(
    header: Header,
    plan: Plan | None,
    nodes: Sequence[NodeRecord],
    held: Mapping[int, str],
    situation: Situation,
) -> list[Wait]:
    """What an open run waits for; `held` says of indices in its step what a limiter told them."""
    current = [node for node in nodes if node.seq == header.seq]
    waits = [
        _of_node(
            node,
            header,
            plan.step(header.pc),
            _planned(plan, header, node),
            held,
            situation,
            is_named=_is_named(plan, header, node),
            place=_place_awaited(plan, header, node, held.get(node.index, "")),
        )
        for node in current
        if plan is not None and node.status not in SETTLED
    ]
    if not situation.coordinators:
        text = "no coordinator lives: start resolute-coord"
        waits.insert(0, Wait(WaitKind.COORDINATOR, text))
    elif not situation.is_coordinated:
        age = humanize(situation.event_age)
        text = f"coordinators do not keep up: an event has waited for {age}"
        waits.insert(0, Wait(WaitKind.COORDINATOR, text))
    elif header.due is not None and not header.seq:
        waits.append(_later("it begins", header.due, situation))
    elif header.replaces and not header.plan and header.status is RunStatus.RUNNING:
        text = f"run {header.replaces}, which it replaces, is to end"
        waits.append(Wait(WaitKind.RUN, text, since=header.started))
    elif not waits:
        what = "go on to the next step" if header.seq else "begin it"
        waits.append(Wait(WaitKind.COORDINATOR, f"a coordinator is to {what}", since=header.moved))
    return waits


def _planned(plan: Plan | None, header: Header, node: NodeRecord) -> NodePlan | None:
    if plan is None:
        return None
    planned = plan.node(header.pc, node.index)
    return planned.compensation if node.compensates else planned


def _place_awaited(plan: Plan, header: Header, node: NodeRecord, hold: str) -> str:
    """The concurrency limit that a node waits for, '' for none that is known."""
    number = read_hold(hold).limit
    if number is None or node.status is not NodeStatus.WAITING:
        return ""
    limits = plan.places_at(header.pc, node.index, undo=bool(node.compensates))
    # Behind those of the flow are those of who runs the node by name, which only that one knows.
    return limits[number].name if number < len(limits) else "of its provider"


def _is_named(plan: Plan, header: Header, node: NodeRecord) -> bool:
    return plan.named_at(header.pc, node.index, undo=bool(node.compensates)) is not None


def _of_node(
    node: NodeRecord,
    header: Header,
    step: Step,
    planned: NodePlan | None,
    held: Mapping[int, str],
    situation: Situation,
    *,
    is_named: bool,
    place: str,
) -> Wait:
    match node.status:
        case NodeStatus.WAITING if isinstance(step, Gate):
            return _gate(node, step, situation)
        case NodeStatus.WAITING if isinstance(step, Children):
            child = step.child_id(header.id, node.seq, node.index)
            text = f"{node.name}: run {child} of {step.flow} is to end"
            return Wait(WaitKind.CHILD, text, node.name, since=node.begun)
        case NodeStatus.READY if isinstance(step, Children):
            text = f"{node.name}: number {node.index} begins when another one has ended"
            return Wait(WaitKind.CHILD, text, node.name, since=node.dispatched)
        case NodeStatus.WAITING if isinstance(step, Sleep):
            return _later(f"{node.name} is over", node.due or situation.now, situation, node.name)
        case NodeStatus.RUNNING:
            return _running(node, situation)
        case NodeStatus.WAITING if place:
            return _in_line(node, place, situation)
        case NodeStatus.WAITING:
            return _timer(node, planned, bool(held.get(node.index)), situation)
        case _:
            queue = (planned.queue if planned else "") or queue_of(header.queue)
            return _ready(node, header, queue, situation, is_named=is_named)


def _gate(node: NodeRecord, gate: Gate, situation: Situation) -> Wait:
    text = f"{node.name}: a decision, by signal {gate.signal}"
    if node.due is None:
        return Wait(WaitKind.SIGNAL, text, node.name, since=node.dispatched)
    left = node.due - situation.now
    if left < -OVERDUE:
        return _overdue(node.name, node.due, situation)
    text += f"; it times out in {humanize(max(0.0, left))}"
    return Wait(WaitKind.SIGNAL, text, node.name, since=node.dispatched, due=node.due)


def _later(what: str, due: float, situation: Situation, name: str = "") -> Wait:
    left = due - situation.now
    if left < -OVERDUE:
        return _overdue(name or "the run", due, situation)
    return Wait(WaitKind.TIME, f"{what} in {humanize(max(0.0, left))}", name, due=due)


def _overdue(name: str, due: float, situation: Situation) -> Wait:
    since = humanize(situation.now - due)
    text = f"{name}: its timer is due since {since}, and no coordinator fires it"
    return Wait(WaitKind.COORDINATOR, text, name, due=due)


def _running(node: NodeRecord, situation: Situation) -> Wait:
    spent = humanize(max(0.0, situation.now - (node.begun or situation.now)))
    if situation.knows(node.process):
        text = f"{node.name} runs on {node.process} for {spent}"
        return Wait(WaitKind.NODE, text, node.name, node.process, since=node.begun)
    text = f"{node.name} ran on {node.process}, which is gone: a coordinator hands it out again"
    return Wait(WaitKind.COORDINATOR, text, node.name, node.process, since=node.begun)


def _in_line(node: NodeRecord, place: str, situation: Situation) -> Wait:
    if node.due is not None and node.due < situation.now - OVERDUE:
        return _overdue(node.name, node.due, situation)
    text = f"{node.name}: concurrency limit {place}, it is in line for a place"
    return Wait(WaitKind.CONCURRENCY, text, node.name, since=node.dispatched, due=node.due)


def _timer(node: NodeRecord, planned: NodePlan | None, is_held: bool, situation: Situation) -> Wait:
    left = (node.due or situation.now) - situation.now
    when = f"due in {humanize(left)}" if left > 0 else f"due since {humanize(-left)}"
    if left < -OVERDUE and node.due is not None:
        return _overdue(node.name, node.due, situation)
    if is_held or not node.attempts:
        text = f"{node.name}: rate limit, its turn is {when}"
        return Wait(WaitKind.RATE_LIMIT, text, node.name, due=node.due)
    of = f" of {planned.retry.max_attempts}" if planned else ""
    cause = f", after {_brief(node.error)}" if node.error else ""
    text = f"{node.name}: attempt {node.attempts + 1}{of} {when}{cause}"
    return Wait(WaitKind.RETRY, text, node.name, due=node.due)


def _brief(error: ErrorInfo) -> str:
    line = f"{error.type}: {error.message}".splitlines()[0]
    return line if len(line) <= 80 else f"{line[:79]}…"


def _ready(
    node: NodeRecord, header: Header, queue: str, situation: Situation, *, is_named: bool
) -> Wait:
    if is_named and not situation.serving_name(queue, node.name):
        text = (
            f"{node.name}: waiting for worker: none that lives offers this node by name on queue"
            f" {queue}"
        )
        return Wait(WaitKind.WORKER, text, node.name, queue=queue, since=node.dispatched)
    if not is_named and not situation.serving(queue, header.flow, header.plan):
        text = (
            f"{node.name}: waiting for worker: none that lives offers {header.flow} with plan"
            f" {header.plan} on queue {queue}"
        )
        return Wait(WaitKind.WORKER, text, node.name, queue=queue, since=node.dispatched)
    spent = humanize(max(0.0, situation.now - (node.dispatched or situation.now)))
    if node.crashes >= LONER_CRASHES:
        text = (
            f"{node.name}: {node.crashes} processes died with it, so that it runs alone: in a"
            f" process of queue {queue} that has nothing else to run"
        )
        return Wait(WaitKind.ALONE, text, node.name, queue=queue, since=node.dispatched)
    text = f"{node.name} is ready in queue {queue} for {spent}"
    return Wait(WaitKind.QUEUE, text, node.name, queue=queue, since=node.dispatched)
