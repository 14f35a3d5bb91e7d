"""What the demo shows on the terminal: an introduction, progress, tables, and what to try next."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from examples.enrich_issues.archive import Archive
from examples.enrich_issues.report import DemoReport, FlowReport
from examples.enrich_issues.wire import ServiceStats

MOST_PROBLEMS = 8
"""So many problems are printed; the rest are counted."""


def introduce(archive: Archive, latency: str, error_rate: float, console: Console) -> None:
    """Say what is about to happen."""
    console.print(
        f"[bold]Enriching {len(archive.issues):,} issues[/] from a tracker, a chat and"
        f" {len(archive.pulls):,} pull requests"
    )
    console.print(
        f"[dim]each service takes {latency}, answers {error_rate:.0%} of the calls"
        " with 503 and refuses those over its limit[/]\n",
        highlight=False,
    )


def progress_bars(console: Console) -> Progress:
    """A bar for each flow; use it as a context manager."""
    return Progress(
        TextColumn("  {task.description:<18}", style="bold"),
        BarColumn(bar_width=40),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )


def show(report: DemoReport, console: Console) -> None:
    """Print it all."""
    console.print()
    console.print(_padded(_flow_table(report.flows)))
    console.print(_padded(_service_table(report.services)))
    console.print(_padded(Group(*_verdict(report))))


def _padded(content: RenderableType) -> Padding:
    return Padding(content, (0, 0, 1, 2))


def _flow_table(flows: Iterable[FlowReport]) -> Table:
    table = _table("Flows", "runs", "nodes", "retries", "wall time", "node time", "at once")
    for flow in flows:
        at_once = flow.node_time / flow.wall_time if flow.wall_time else 0.0
        table.add_row(
            flow.flow,
            f"{flow.runs:,}",
            f"{flow.nodes:,}",
            f"{flow.retries:,}",
            f"{flow.wall_time:.2f} s",
            f"{flow.node_time:.2f} s",
            f"{at_once:.1f} x",
        )
    return table


def _service_table(services: Mapping[str, ServiceStats]) -> Table:
    table = _table("Services", "calls", "busiest second", "allowed", "burst", "503", "429")
    for name, seen in services.items():
        table.add_row(
            name,
            f"{seen.calls:,}",
            f"{seen.peak:,}",
            f"{seen.per_second:.0f}/s",
            f"{seen.burst:,}",
            f"{seen.http_503:,}",
            Text(f"{seen.http_429:,}", style="bold red" if seen.http_429 else "green"),
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column(title, style="bold", header_style="bold cyan", min_width=18, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _verdict(report: DemoReport) -> list[Text]:
    problems = report.problems
    if problems:
        lines = [Text(f"✗ {problem}", style="red") for problem in problems[:MOST_PROBLEMS]]
        if more := len(problems) - MOST_PROBLEMS:
            lines += [Text(f"✗ and {more:,} more", style="red")] if more > 0 else []
        return lines
    mark = ("✓ ", "green")
    return [
        Text.assemble(mark, f"{report.rows:,} rows, each as the archive says, after either flow"),
        Text.assemble(mark, "no call was over the limit of its service"),
        Text.assemble(mark, "the rows: ", (str(report.database), "cyan")),
    ]


def suggest(redis: str | None, console: Console) -> None:
    """What to try next; `redis` is the server that still runs, if one does."""
    demo = "python -m examples.enrich_issues.demo"
    if redis is None:
        suggestions = {
            f"{demo} --keep": "and look around while it runs",
            f"{demo} --data issues.json.gz": "your own archive",
            f"{demo} --copies 10": "ten flows an issue",
        }
    else:
        suggestions = {
            f"resolute ls --redis {redis}": "the runs",
            f"resolute show ID --redis {redis}": "one of them, node by node",
            f"resolute graph enrich-issue --redis {redis}": "the flow as a graph",
        }
    console.print("  [bold cyan]Try next[/]")
    width = max(map(len, suggestions))
    for command, purpose in suggestions.items():
        line = Text.assemble(f"    {command:<{width}}  ", (purpose, "dim"))
        console.print(line, soft_wrap=True)


def give_up(reason: str, console: Console) -> None:
    """Say why the demo ends early."""
    console.print(Text.assemble(("✗ ", "red"), reason))
