"""`resolute ls`."""

from __future__ import annotations

from collections.abc import Sequence

import click
from rich.console import Console
from rich.table import Column, Table

from resolute.cli.output import (
    console,
    error_text,
    local_time,
    make_table,
    print_json,
    room_beside,
    status_text,
)
from resolute.cli.target import Target, json_option, target_options
from resolute.client import Client, RunInfo
from resolute.durations import humanize
from resolute.status import RunStatus
from resolute.store import registry

MIN_ERROR = 16  # columns


@click.command("ls")
@click.option("--status", type=click.Choice([s.value for s in RunStatus]), help="Only these.")
@click.option("--flow", help="Only runs of this flow.")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=50,
    show_default=True,
    help="At most.",
)
@click.option("--after", metavar="ID", help="Go on after this run, the last of the page before.")
@json_option
@target_options
def ls(
    target: Target,
    status: str | None,
    flow: str | None,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """List runs, newest first."""

    async def work(client: Client) -> tuple[list[RunInfo], float]:
        runs = await client.list(status=status, flow=flow, limit=limit, after=after)
        return runs, await registry.server_ms(client.store) / 1000

    found, now = target.run(work)
    if as_json:
        print_json(found)
    elif not found:
        click.echo("no such runs" if status or flow or after else "no runs yet", err=True)
    else:
        screen = console()
        screen.print(runs_table(found, now, screen))
        if len(found) == limit:
            click.echo(f"there may be more: --after {found[-1].id}", err=True)


def runs_table(found: Sequence[RunInfo], now: float, screen: Console) -> Table:
    """One row a run; errors only where there are any, in the room that is left."""
    plain = _table(found, now, 0)
    if not any(run.error for run in found):
        return plain
    return _table(found, now, max(MIN_ERROR, room_beside(screen, plain)))


def _table(found: Sequence[RunInfo], now: float, error_width: int) -> Table:
    table = make_table(
        Column("id", overflow="fold", min_width=20),
        Column("flow", overflow="fold"),
        Column("status", no_wrap=True),
        Column("started", no_wrap=True),
        Column("took", no_wrap=True, justify="right"),
    )
    if error_width:
        table.add_column("error", no_wrap=True, overflow="ellipsis", max_width=error_width)
    for run in found:
        took = humanize(max(0.0, (run.ended or now) - run.started))
        cells = [run.id, run.flow, status_text(run.status), local_time(run.started, now), took]
        table.add_row(*cells, *([error_text(run.error)] if error_width else []))
    return table
