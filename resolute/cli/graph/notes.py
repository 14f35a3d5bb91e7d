"""What is special about a node, in short texts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from resolute.durations import humanize, spell
from resolute.model.plan import (
    Children,
    ConcurrencyPlan,
    Each,
    Gate,
    LimitPlan,
    NodePlan,
    PlacesPlan,
    Plan,
    PriorityPlan,
    RetryPlan,
    Sleep,
    Wait,
)

DEFAULTS = NodePlan("", "")

# What a plan says of nodes apart from them, by their identity: two may be equal but for that.
Extras = Mapping[int, Sequence[str]]


def extras_in(plan: Plan) -> Extras:
    """The concurrency limits and priorities of the nodes of a flow."""
    found: dict[int, list[str]] = defaultdict(list)
    for one in (*plan.concurrency, *plan.priorities):
        node = plan.node(one.pc, one.index)
        notes = found[id(node.compensation if one.undo else node)]
        match one:
            case ConcurrencyPlan(limits=limits):
                notes += [places_note(limit) for limit in limits]
            case PriorityPlan(priority=priority):
                notes.append(f"priority {priority}")
    return found


def notes_on(node: NodePlan, extras: Extras) -> list[str]:
    """Everything that is not the default, and the compensation."""
    notes: list[str] = []
    if node.key != node.name:
        notes.append(f"as {node.key}")
    if node.queue:
        notes.append(f"queue {node.queue}")
    if node.timeout_ms != DEFAULTS.timeout_ms:
        notes.append(f"timeout {humanize(node.timeout_ms / 1000)}")
    if node.heartbeat_ms:
        notes.append(f"heartbeat {humanize(node.heartbeat_ms / 1000)}")
    if node.retry != DEFAULTS.retry:
        notes.append(retry_note(node.retry))
    notes += [limit_note(limit) for limit in node.limits]
    notes += extras.get(id(node), ())
    if node.best_effort:
        notes.append("best effort")
    return notes


def retry_note(retry: RetryPlan) -> str:
    """``5 attempts, 1.0 s x 2 up to 1m 0s apart``"""
    if retry.max_attempts == 1:
        return "no retry"
    first, most = retry.initial_ms / 1000, retry.maximum_ms / 1000
    growth = f" x {retry.coefficient:g} up to {humanize(most)}" if retry.coefficient > 1 else ""
    final = f", never after {', '.join(retry.non_retryable)}" if retry.non_retryable else ""
    return f"{retry.max_attempts} attempts, {humanize(first)}{growth} apart{final}"


def limit_note(limit: LimitPlan) -> str:
    """``rate limit one each 1.2 s, burst 50``, and whose it is if others have a part in it."""
    pace = f"rate limit one each {humanize(limit.interval_us / 1_000_000)}, burst {limit.burst:,}"
    shared = limit.bucket.removeprefix("shared:")
    whose = f", shared as {shared}" if shared != limit.bucket else ""
    return f"{pace}{whose}{', by key' if limit.keyed else ''}"


def places_note(limit: PlacesPlan) -> str:
    """``5 at one time as tenant, by key``"""
    return f"{limit.n:,} at one time as {limit.name}{', by key' if limit.keyed else ''}"


def each_note(each: Each) -> str:
    """``for each item, 10 at a time``"""
    return "for each item" + _at_a_time(each.window)


def children_note(children: Children, extras: Extras) -> str:
    """``a run of send-mail for each input, one at a time``"""
    queue = f" on queue {children.queue}" if children.queue else ""
    forgives = ", best effort" if children.nodes[0].best_effort else ""
    each = f"a run of {children.flow}{queue} for each input"
    own = "".join(f", {note}" for note in extras.get(id(children.nodes[0]), ()))
    return each + _at_a_time(children.window) + own + forgives


def _at_a_time(window: int) -> str:
    if window == 1:
        return ", one at a time"
    return f", {window:,} at a time" if window else ""


def pause_note(wait: Wait) -> str:
    """``signal approval, times out after 24h``, or how long a sleep lasts."""
    match wait:
        case Gate(signal=signal, timeout_ms=timeout):
            until = f"times out after {spell(timeout)}" if timeout else "for ever"
            return f"signal {signal}, {until}"
        case Sleep(ms=ms):
            return f"sleeps {spell(ms)}" if ms else "sleeps until a moment that is asked for"
