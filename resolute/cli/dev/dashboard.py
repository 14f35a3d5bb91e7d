"""What runs, as a table that is drawn again a few times a second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Column, Table
from rich.text import Text

from resolute.cli.live import Situation, read_situation
from resolute.cli.output import counted, make_table, status_text
from resolute.client import Client
from resolute.durations import humanize
from resolute.model.plan import Plan, Run, Wait, Wide
from resolute.status import TERMINAL, RunStatus
from resolute.store import runs, streams
from resolute.store.connection import Command
from resolute.store.registry import ProcessInfo
from resolute.store.runs import Header
from resolute.store.script import GROUP_WORKERS
from resolute.store.store import Store

BAR = 12  # columns


class RunRow(msgspec.Struct, frozen=True):
    """A run and the step it is at; `progress` is a part of 1."""

    header: Header
    step: str
    progress: float


class Board(msgspec.Struct, frozen=True):
    """What the dashboard shows; `busy` counts the nodes that a process has."""

    situation: Situation
    rows: list[RunRow]
    counts: dict[str, int]
    busy: dict[str, int]


async def read_board(client: Client, limit: int) -> Board:
    """Look at everything once."""
    situation = await read_situation(client.store)
    recent = await client.list(limit=limit)
    headers = await runs.read_headers(client.store, [run.id for run in recent])
    rows = [await _row(client, header) for header in headers if isinstance(header, Header)]
    counts = await _counts(client.store)
    return Board(situation, rows, counts, await _busy(client.store, situation.workers))


async def _row(client: Client, header: Header) -> RunRow:
    plan = await client.directory.plan(header.plan) if header.plan else None
    if header.status is RunStatus.COMPLETED:
        return RunRow(header, "", 1.0)
    if plan is None or not header.seq:
        return RunRow(header, "", 0.0)
    step = plan.step(header.pc)
    width = plan.width(header.pc, header.width)
    if header.undoing:
        return RunRow(header, f"↩ {step.step}", _share(plan, header.pc, 0))
    done = max(0, width - header.pending)
    many = f" {done}/{width}" if width > 1 else ""
    return RunRow(header, f"{step.step}{many}", _share(plan, header.pc, done / max(1, width)))


def _share(plan: Plan, pc: int, of_step: float) -> float:
    """How far a run is, by the steps as they are written; an arm not taken is jumped over."""
    steps = [at for at, one in enumerate(plan.instructions) if isinstance(one, Run | Wide | Wait)]
    before = sum(at < pc for at in steps)
    return (before + (of_step if pc in steps else 0.0)) / max(1, len(steps))


async def _counts(store: Store) -> dict[str, int]:
    """How many runs are open, and how many ended in each way."""
    commands: list[Command] = []
    for partition in store.keys.partitions:
        commands.append(("ZCARD", partition.open))
        commands += [("ZCARD", partition.ended(status)) for status in TERMINAL]
    totals: Counter[str] = Counter()
    names = ["open", *(status.value for status in TERMINAL)] * len(store.keys.partitions)
    for name, count in zip(names, await store.execute_all(commands), strict=True):
        totals[name] += int(count)
    return dict(totals)


async def _busy(store: Store, workers: Sequence[ProcessInfo]) -> dict[str, int]:
    """How many nodes each process has taken, counted over its queue's streams."""
    names = {
        partition.queue(name)
        for partition in store.keys.partitions
        for worker in workers
        for name in worker.queues
    }
    found: Counter[str] = Counter()
    for counts in await streams.consumers(store, [(name, GROUP_WORKERS) for name in sorted(names)]):
        found.update(counts)
    return dict(found)


def render(board: Board) -> RenderableType:
    """Counts, recent runs, processes."""
    return Group("", _count_line(board.counts), "", _runs(board), "", _processes(board))


def _count_line(counts: dict[str, int]) -> Text:
    text = Text(f"{counts['open']:,} open", style="bold")
    for status in TERMINAL:
        if counts[status.value]:
            text.append("   ").append(f"{counts[status.value]:,} ", style="bold")
            text.append_text(status_text(status))
    return text


def _runs(board: Board) -> RenderableType:
    if not board.rows:
        return Text("no runs yet", style="dim")
    table = make_table(
        Column("id", overflow="ellipsis", no_wrap=True, min_width=20),
        Column("flow", overflow="ellipsis", no_wrap=True),
        Column("status", no_wrap=True),
        Column("step", overflow="ellipsis", no_wrap=True),
        Column("progress", no_wrap=True),
        Column("age", justify="right", no_wrap=True),
    )
    for row in board.rows:
        header = row.header
        age = humanize(max(0.0, board.situation.now - header.started))
        bar = ProgressBar(total=1.0, completed=row.progress, width=BAR)
        cells = (header.id, header.flow, status_text(header.status), row.step)
        table.add_row(*cells, bar, age)
    return table


def _processes(board: Board) -> Table:
    table = make_table(
        Column("process", overflow="ellipsis", no_wrap=True),
        Column("queue", overflow="ellipsis", no_wrap=True),
        Column("nodes", no_wrap=True, justify="right"),
        Column("age", no_wrap=True, justify="right"),
    )
    for process in (*board.situation.coordinators, *board.situation.workers):
        age = humanize(max(0.0, board.situation.now - process.started / 1000))
        is_worker = process.kind == "worker"
        nodes = f"{board.busy.get(process.name, 0)} of {process.concurrency}" if is_worker else ""
        table.add_row(process.name, process.queue or process.kind, nodes, age)
    if not board.situation.workers:
        table.add_row(Text("no worker process yet", style="dim"))
    return table


def summary(workers: Sequence[ProcessInfo]) -> str:
    """Worker processes in one line."""
    queues = Counter(worker.queue for worker in workers)
    return ", ".join(f"{counted(n, 'process')} on queue {q}" for q, n in sorted(queues.items()))
