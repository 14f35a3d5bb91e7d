"""`resolute trigger`."""

from __future__ import annotations

import click

from resolute.cli.output import print_json
from resolute.cli.start import read_value
from resolute.cli.target import Target, json_option, target_options
from resolute.client import Client


@click.command()
@click.argument("name", metavar="SIGNAL")
@click.option("--payload", "source", metavar="JSON|@FILE|-", help="The input of the runs.")
@click.option("--id", "own_id", help="Your own id of this signal: sent twice it starts them once.")
@json_option
@target_options
def trigger(
    target: Target, name: str, source: str | None, own_id: str | None, as_json: bool
) -> None:
    """Start a run of every flow that is triggered by the signal SIGNAL."""
    payload = None if source is None else read_value(source, "--payload")

    async def work(client: Client) -> list[str]:
        return [run.id for run in await client.trigger(name, payload, id=own_id)]

    started = target.run(work)
    if as_json:
        print_json({"signal": name, "runs": started})
    else:
        for run_id in started:
            click.echo(run_id)
