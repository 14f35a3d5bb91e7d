"""`resolute cancel`, `resolute terminate`, `resolute retry` and `resolute rerun`."""

from __future__ import annotations

import click

from resolute.cli.exits import fail
from resolute.cli.output import print_json
from resolute.cli.target import Target, json_option, target_options
from resolute.client import Client
from resolute.status import RunStatus


@click.command()
@click.argument("run_id", metavar="ID")
@click.option("--reason", default="", help="Kept with the run, for people.")
@json_option
@target_options
def cancel(target: Target, run_id: str, reason: str, as_json: bool) -> None:
    """Cancel a run: running nodes are cancelled, what completed is compensated."""

    async def work(client: Client) -> tuple[bool, RunStatus]:
        done = await client.cancel(run_id, reason)
        return done, await (await client.get(run_id)).status()

    _report(run_id, *target.run(work), as_json, "cancelled")


@click.command()
@click.argument("run_id", metavar="ID")
@click.option("--reason", default="", help="Kept with the run, for people.")
@json_option
@target_options
def terminate(target: Target, run_id: str, reason: str, as_json: bool) -> None:
    """End a run at once; nothing is compensated."""

    async def work(client: Client) -> tuple[bool, RunStatus]:
        done = await client.terminate(run_id, reason)
        return done, await (await client.get(run_id)).status()

    _report(run_id, *target.run(work), as_json, "terminated")


def _report(run_id: str, done: bool, status: RunStatus, as_json: bool, ended: str) -> None:
    if as_json:
        print_json({"id": run_id, "done": done, "status": status})
    if not done:
        fail(f"run {run_id!r} is {status} and cannot be {ended}")
    if not as_json:
        click.echo(f"run {run_id!r} is being {ended}" if not status.is_terminal
                   else f"run {run_id!r} is {status}")  # fmt: skip


@click.command()
@click.argument("run_id", metavar="ID")
@json_option
@target_options
def retry(target: Target, run_id: str, as_json: bool) -> None:
    """Start an ended run anew from its failed step, as a new run, and print its id.

    Where steps were compensated it goes on from the first of them.
    """

    async def work(client: Client) -> str:
        return (await client.retry(run_id)).id

    new = target.run(work)
    if as_json:
        print_json({"id": new, "retry_of": run_id})
    else:
        click.echo(new)


@click.command()
@click.argument("run_id", metavar="ID")
@click.option("--id", "new_id", help="Of the new run; the same id is the same run.")
@json_option
@target_options
def rerun(target: Target, run_id: str, new_id: str | None, as_json: bool) -> None:
    """Start a run's flow anew with the same input, from the start, and print the new id.

    It has the plan that is offered today, and the queue and priority of the run ID.
    """

    async def work(client: Client) -> str:
        try:
            return (await client.rerun(run_id, id=new_id)).id
        except ValueError as error:  # an id that cannot be one
            raise click.UsageError(str(error)) from None

    new = target.run(work)
    if as_json:
        print_json({"id": new, "rerun_of": run_id})
    else:
        click.echo(new)
