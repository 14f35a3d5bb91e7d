"""`resolute signal`."""

from __future__ import annotations

from typing import Any

import click

from resolute.cli.output import print_json
from resolute.cli.start import read_value
from resolute.cli.target import Target, json_option, target_options
from resolute.client import Client
from resolute.client.directory import DECISION
from resolute.errors import InvalidSignal
from resolute.model.gates import GateResult


@click.command()
@click.argument("run_id", metavar="ID")
@click.argument("name", metavar="SIGNAL")
@click.option("--payload", "source", metavar="JSON|@FILE|-", help="What the signal carries.")
@click.option("--approve/--reject", "approved", default=None, help="A gate's decision.")
@click.option("--by", default="", help="Who decided.")
@click.option("--reason", default="", help="Why.")
@click.option("--sender", help="Your own id of this signal: sent twice it is one.")
@json_option
@target_options
def signal(
    target: Target,
    run_id: str,
    name: str,
    source: str | None,
    approved: bool | None,
    by: str,
    reason: str,
    sender: str | None,
    as_json: bool,
) -> None:
    """Send the signal SIGNAL to a run: the decision that a gate waits for, or any other.

    A decision is --approve or --reject, with --by and --reason; anything else is --payload.
    """
    payload = _payload(source, approved, by, reason)

    async def work(client: Client) -> None:
        try:
            await client.signal(run_id, name, payload, sender=sender)
        except InvalidSignal as error:
            hint = ": use --approve or --reject" if error.reason.endswith(DECISION) else ""
            raise InvalidSignal(name, error.reason + hint) from None

    target.run(work)
    if as_json:
        print_json({"id": run_id, "signal": name})
    else:
        click.echo(f"signal {name!r} was sent to run {run_id!r}")


def _payload(source: str | None, approved: bool | None, by: str, reason: str) -> Any:
    if approved is None and (by or reason):
        raise click.UsageError("--by and --reason belong to --approve or --reject")
    if source is None:
        return None if approved is None else GateResult(approved, by, reason)
    if approved is not None:
        raise click.UsageError("expected --payload, or --approve or --reject, got both")
    return read_value(source, "--payload")
