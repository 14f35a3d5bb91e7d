"""`resolute show`."""

from __future__ import annotations

import asyncio

import click
from rich.live import Live

from resolute.cli.output import console, print_json, to_json
from resolute.cli.show.render import render
from resolute.cli.show.snapshot import Snapshot, take_snapshot
from resolute.cli.target import Target, json_option, target_options
from resolute.client import Client

WATCH_PERIOD = 0.5  # s


@click.command()
@click.argument("run_id", metavar="ID")
@click.option("--watch", is_flag=True, help="Show it until it ends; with --json, a line a change.")
@click.option("--all", "show_all", is_flag=True, help="Every node and every traceback.")
@json_option
@target_options
def show(target: Target, run_id: str, watch: bool, show_all: bool, as_json: bool) -> None:
    """Show a run: its nodes on a time axis, errors, and what it waits for."""
    if watch:
        target.run(lambda client: _watch(client, run_id, show_all, as_json))
        return
    snapshot = target.run(lambda client: take_snapshot(client, run_id))
    if as_json:
        print_json(snapshot)
    else:
        screen = console()
        screen.print(render(snapshot, screen, show_all=show_all))


async def _watch(client: Client, run_id: str, show_all: bool, as_json: bool) -> None:
    screen = console()
    live = Live(console=screen, auto_refresh=False, transient=True)
    drawing = screen.is_terminal and not as_json
    if drawing:
        live.start()
    try:
        before: Snapshot | None = None
        while True:
            snapshot = await take_snapshot(client, run_id)
            if drawing:
                live.update(render(snapshot, screen, show_all=show_all), refresh=True)
            elif as_json and not snapshot.same_as(before):
                click.echo(to_json(snapshot, indent=0))
            if snapshot.is_over:
                break
            before = snapshot
            await asyncio.sleep(WATCH_PERIOD)
    finally:
        live.stop()
    if not as_json:
        screen.print(render(snapshot, screen, show_all=show_all))
