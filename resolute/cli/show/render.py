"""A run on the screen: header, what it waits for, nodes on a time axis, errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from resolute.cli.output import (
    error_text,
    full_time,
    local_time,
    make_table,
    room_beside,
    status_text,
    to_json,
)
from resolute.cli.show.snapshot import Snapshot
from resolute.cli.show.timeline import Axis
from resolute.cli.show.waiting import Wait, WaitKind
from resolute.durations import humanize
from resolute.model.gates import GateResult
from resolute.model.messages import NodeRecord
from resolute.priority import Priority
from resolute.status import NodeStatus, RunStatus

MAX_NODES = 12  # of one step, unless all are asked for
MAX_WAITS, MAX_ALIKE = 6, 2
MAX_ERRORS = 5
MAX_LETTERS = 3
BAR_WIDTHS = (10, 60)  # narrower is not drawn, wider says no more

# What somebody who looks at a wide step wants to see first.
_INTEREST = {
    NodeStatus.FAILED: 0,
    NodeStatus.RUNNING: 1,
    NodeStatus.WAITING: 2,
    NodeStatus.READY: 3,
    NodeStatus.SKIPPED: 4,
    NodeStatus.COMPLETED: 5,
}


def render(snapshot: Snapshot, console: Console, *, show_all: bool = False) -> RenderableType:
    """The whole screen."""
    parts: list[RenderableType] = [_header(snapshot)]
    if snapshot.waits:
        parts += ["", Text("waits for", style="bold dim"), *_waits(snapshot.waits)]
    if snapshot.dead_letters:
        parts += ["", Text("dead letters", style="bold dim"), *_dead_letters(snapshot)]
    if snapshot.nodes:
        parts += ["", _nodes(snapshot, console, show_all)]
    parts += _errors(snapshot, show_all)
    return Group(*parts)


def _header(snapshot: Snapshot) -> Table:
    run = snapshot.run
    table = make_table()
    table.add_column(style="bold dim", no_wrap=True)
    table.add_column(overflow="fold")
    took = humanize(max(0.0, (run.ended or snapshot.now) - run.started))
    table.add_row("run", Text(run.id, style="bold"))
    priority = f", priority {run.priority}" if run.priority != Priority.NORMAL else ""
    table.add_row("flow", f"{run.flow} on queue {run.queue}{priority}")
    table.add_row("plan", run.plan or "not chosen yet")
    if run.retry_of:
        table.add_row("retry of", run.retry_of)
    table.add_row("status", status_text(run.status))
    table.add_row("started", full_time(run.started))
    table.add_row("took" if run.ended else "since", took)
    if snapshot.costs:
        sums = (f"{amount:,f} {unit}" for unit, amount in snapshot.costs.items())
        table.add_row("cost", ", ".join(sums))
    for gate, decision in snapshot.decisions.items():
        table.add_row("decided", Text(f"{gate}: {_decision(decision)}"))
    if run.error:
        table.add_row("error", Text(error_text(run.error), style="red"))
    if run.status is RunStatus.COMPLETED:
        result = Text(to_json(snapshot.result, indent=0), overflow="ellipsis", no_wrap=True)
        table.add_row("result", result)
    return table


def _decision(decision: GateResult) -> str:
    """What was decided, by whom, and why."""
    text = "approved" if decision.approved else "rejected"
    if decision.decided_by:
        text += f" by {decision.decided_by}"
    if decision.reason:
        text += f": {decision.reason}"
    return f"{text} {to_json(decision.metadata, indent=0)}" if decision.metadata else text


def _nodes(snapshot: Snapshot, console: Console, show_all: bool) -> Table:
    run = snapshot.run
    plain = _node_table(snapshot, None, show_all)
    narrowest, widest = BAR_WIDTHS
    width = min(widest, room_beside(console, plain))
    if width < narrowest:
        return plain
    return _node_table(snapshot, Axis(run.started, run.ended or snapshot.now, width), show_all)


def _node_table(snapshot: Snapshot, axis: Axis | None, show_all: bool) -> Table:
    table = make_table(
        Column("node", overflow="fold", max_width=32),
        Column("status", no_wrap=True),
        Column("try", justify="right"),
        Column("began", no_wrap=True),
        Column("took", justify="right", no_wrap=True),
    )
    if axis is not None:
        table.add_column(axis.header(), no_wrap=True)
    # What a run that was terminated left running is not looked at by anybody after its end.
    until = snapshot.run.ended or snapshot.now
    for _, group in groupby(snapshot.nodes, key=lambda node: node.seq):
        step = list(group)
        is_wide = len({node.name for node in step}) < len(step)
        is_named = any(node.name != node.step for node in step)
        is_parallel = (is_wide or is_named) and not step[0].compensates
        if is_parallel:
            table.add_row(Text(step[0].step, style="bold"))
        shown = step if show_all else _interesting(step)
        for node in shown:
            number = f"[{node.index}]" if is_wide else ""
            table.add_row(*_cells(node, (snapshot.now, until), axis, number, indented=is_parallel))
        for status, count in _left_out(step, shown):
            table.add_row(Text(f"  … {count:,} more", style="dim"), status_text(status))
    return table


def _interesting(step: Sequence[NodeRecord]) -> list[NodeRecord]:
    if len(step) <= MAX_NODES:
        return list(step)
    best = sorted(step, key=lambda node: (_INTEREST[node.status], node.index))[:MAX_NODES]
    return sorted(best, key=lambda node: node.index)


def _left_out(
    step: Sequence[NodeRecord], shown: Iterable[NodeRecord]
) -> Iterator[tuple[NodeStatus, int]]:
    seen = {node.index for node in shown}
    left = Counter(node.status for node in step if node.index not in seen)
    yield from ((status, left[status]) for status in _INTEREST if left[status])


def _cells(
    node: NodeRecord, times: tuple[float, float], axis: Axis | None, number: str, *, indented: bool
) -> Iterator[RenderableType]:
    """A row; `times` are now, and until when a node that has not ended is counted as running."""
    now, until = times
    name = Text("  " if indented else "")
    name.append(f"↩ {node.name}" if node.compensates else node.name + number)
    if node.compensates:
        name.append(f" undoes {node.compensates}", style="dim")
    yield name
    yield status_text(node.status)
    yield _tries(node)
    yield local_time(node.begun, now) if node.begun is not None else ""
    ended = node.ended if node.ended is not None else until
    yield humanize(max(0.0, ended - node.begun)) if node.begun is not None else ""
    if axis is not None:
        yield axis.bar(node, until)


def _tries(node: NodeRecord) -> Text:
    text = Text(str(node.attempts) if node.attempts else "", style="yellow" * (node.attempts > 1))
    if node.crashes:
        text.append(f" +{node.crashes} crashed", style="red")
    return text


def _waits(waits: Sequence[Wait]) -> Iterator[RenderableType]:
    """All of a few; of many, some of each kind."""
    for _, group in groupby(sorted(waits, key=_urgency), key=lambda wait: wait.kind):
        alike = list(group)
        shown = alike if len(waits) <= MAX_WAITS else alike[:MAX_ALIKE]
        for wait in shown:
            yield Padding(Text(wait.text), (0, 0, 0, 2), expand=False)
        if len(shown) < len(alike):
            yield Text(f"  … {len(alike) - len(shown):,} more like this", style="dim")


def _dead_letters(snapshot: Snapshot) -> Iterator[RenderableType]:
    """What could not be used of this run, and where to look at it."""
    for letter in snapshot.dead_letters[:MAX_LETTERS]:
        when = local_time(letter.buried, snapshot.now)
        what = letter.node or "an event"
        text = f"{what} from {letter.origin} at {when}: {letter.why}"
        yield Padding(Text(text, style="red"), (0, 0, 0, 2), expand=False)
        yield Padding(Text(f"resolute dead show {letter.id}", style="dim"), (0, 0, 0, 4))
    if len(snapshot.dead_letters) > MAX_LETTERS:
        yield Text(f"  … {len(snapshot.dead_letters) - MAX_LETTERS:,} more", style="dim")


def _urgency(wait: Wait) -> int:
    return list(WaitKind).index(wait.kind)


def _errors(snapshot: Snapshot, show_all: bool) -> Iterator[RenderableType]:
    """Each node's error; a traceback for the first. A retried node that completed has none."""
    failed = [
        (node.name, node.error)
        for node in snapshot.nodes
        if node.error and node.status is not NodeStatus.COMPLETED
    ]
    # The one that failed the run first: the others may follow from it.
    failed.sort(key=lambda one: one[1] != snapshot.run.error)
    shown = failed if show_all else failed[:MAX_ERRORS]
    for number, (name, error) in enumerate(shown):
        yield ""
        yield Text(f"{name}: {error.type}: {error.message}", style="bold red")
        if error.traceback and (show_all or not number):
            text = Text(error.traceback.rstrip(), style="dim")
            yield Padding(text, (0, 0, 0, 2), expand=False)
    if len(shown) < len(failed):
        yield Text(f"… {len(failed) - len(shown):,} more errors", style="dim")
