"""`scripts/chaos`: a soak of any length; exit code 1 where an invariant broke."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from resolute.testing.server import find_server, inspect_binary
from tests.faults import nemesis
from tests.faults.chaos import Plan, Report, Soak, Stuck, summary

INVARIANTS = ("I1", "I2", "I3", "I4", "I5", "I6", "I7", "I8", "I9", "I10", "I11")


@click.command(context_settings={"show_default": True})
@click.option("--minutes", type=float, default=2.0, help="How long faults are injected.")
@click.option("--seed", type=int, default=None, help="Of the load and the schedule of faults.")
@click.option("--workers", type=click.IntRange(1), default=3, help="Each of two processes.")
@click.option("--coordinators", type=click.IntRange(1), default=2)
@click.option("--partitions", type=click.IntRange(1), default=3)
@click.option("--faults", default="all", help="all, none, or numbers: 1,3,8")
@click.option("--open-runs", type=click.IntRange(1), default=40, help="Kept open by the load.")
@click.option("--lease", type=float, default=3.0, help="Seconds.")
@click.option("--server", default=None, help="Path of the server program.")
@click.option("--keep", is_flag=True, help="Keep the folder with the oracle and the logs.")
def main(
    minutes: float,
    seed: int | None,
    workers: int,
    coordinators: int,
    partitions: int,
    faults: str,
    open_runs: int,
    lease: float,
    server: str | None,
    keep: bool,
) -> None:
    """Break everything for a while, and look whether anything was lost."""
    console = Console()
    try:
        chosen = nemesis.chosen(faults)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--faults") from None
    plan = Plan(
        seconds=minutes * 60,
        seed=time.time_ns() % 1_000_000 if seed is None else seed,
        workers=workers,
        coordinators=coordinators,
        partitions=partitions,
        faults=chosen,
        open_runs=open_runs,
        lease=lease,
        binary=inspect_binary(server) if server else find_server(),
    )
    console.print(
        f"chaos: seed {plan.seed}, {plan.binary}, {workers} workers, {coordinators} coordinators,"
        f" {partitions} partitions, lease {lease:g} s",
        highlight=False,
    )
    folder = Path(tempfile.mkdtemp(prefix="resolute-chaos-"))
    code = _run(plan, folder, console)
    if keep or code:
        console.print(f"chaos: the oracle and the logs are in {folder}", highlight=False)
    else:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)
    sys.exit(code)


def _run(plan: Plan, folder: Path, console: Console) -> int:
    def say(line: str) -> None:
        end = "\r" if console.is_terminal else "\n"
        console.print(line, highlight=False, soft_wrap=True, end=end)

    soak = Soak(plan, folder, say)
    try:
        report = asyncio.run(soak.run())
    except Stuck as stuck:
        console.print(f"chaos: STUCK, seed {plan.seed}: {stuck}", highlight=False)
        return 1
    console.print(table(report))
    for broken in report.broken:
        console.print(f"BROKEN {broken}", highlight=False, soft_wrap=True, style="red")
    for run, history in report.histories.items():
        console.print(f"history of {run}:\n{history}", highlight=False)
    if report.broken:
        console.print(f"chaos: broken, seed {plan.seed}", style="red", highlight=False)
    return 1 if report.broken else 0


def table(report: Report) -> Table:
    """The table at the end."""
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(no_wrap=True)
    made.add_column(justify="right")
    rows: list[tuple[str, str]] = [
        *((f"fault {name}", f"{count:,}") for name, count in sorted(report.faults.items())),
        ("faults injected", f"{sum(report.faults.values()):,}"),
        ("runs", f"{report.runs:,}"),
        ("node instances", f"{report.nodes:,}"),
        ("attempts", f"{report.attempts:,}"),
        ("executions", f"{report.account.executions:,}"),
        ("  cut short by a kill", f"{report.account.unfinished:,}"),
        ("  at once with another, cut off", f"{report.account.overlaps:,}"),
        ("  under the limit", f"{report.account.limited:,}"),
        ("  with a place", f"{report.account.seated:,}"),
        ("crashes counted", f"{report.crashes:,}"),
        ("nodes poisoned", f"{report.poisoned:,}"),
        ("stale commits refused", f"{report.stale:,}"),
    ]
    for what, spans in sorted(report.recovery.items()):
        count, median, longest = summary(spans)
        rows += [
            (f"run again after {what} was killed ({count})",
             f"p50 {median:.2f} s, max {longest.seconds:.2f} s"),
            ("  the longest", longest.node),
        ]  # fmt: skip
    for name, (before, after) in report.memory.items():
        rows.append((f"memory of {name}", f"{before:.0f} MB, then {after:.0f} MB"))
    for invariant in INVARIANTS:
        broken = sum(one.invariant == invariant for one in report.broken)
        rows.append((f"invariant {invariant}", f"BROKEN {broken}" if broken else "holds"))
    for name, value in rows:
        made.add_row(name, value)
    return made


if __name__ == "__main__":
    main()
