"""`resolute query`."""

from __future__ import annotations

from typing import Any

import click

from resolute.cli.output import print_json
from resolute.cli.target import Target, target_options
from resolute.client import Client


@click.command()
@click.argument("run_id", metavar="ID")
@click.argument("name", metavar="QUERY")
@click.option("--timeout", default=10.0, show_default=True, help="Seconds to wait for a worker.")
@target_options
def query(target: Target, run_id: str, name: str, timeout: float) -> None:
    """Ask a run the query QUERY and print the answer as JSON."""

    async def work(client: Client) -> Any:
        return await client.query(run_id, name, timeout=timeout)

    print_json(target.run(work))
