"""`resolute start`."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from resolute.cli.exits import Exit, fail, say_error
from resolute.cli.output import print_json, to_json
from resolute.cli.target import Target, json_option, target_options
from resolute.client import Client, FlowRun
from resolute.durability import Durability
from resolute.durations import humanize
from resolute.errors import FlowFailed
from resolute.model.claims import IF_RUNNING, Debounce, IfRunning, Unique
from resolute.options import DURATION
from resolute.priority import Priority
from resolute.status import RunStatus

FORMATS = ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S")


def read_value(text: str, option: str) -> Any:
    """A JSON text, ``@file`` or ``-`` (stdin) as a value. Raises BadParameter."""
    try:
        if text == "-":
            text = sys.stdin.read()
        elif text.startswith("@"):
            text = Path(text[1:]).read_text("utf-8")
        return msgspec.json.decode(text)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise click.BadParameter(f"{option}: cannot read {text[1:]!r}: {reason}") from None
    except UnicodeError as error:
        raise click.BadParameter(f"{option}: expected text in UTF-8: {error}") from None
    except msgspec.DecodeError as error:
        raise click.BadParameter(f"{option}: expected JSON, @file or -: {error}") from None


@click.command()
@click.argument("flow")
@click.option("--input", "-i", "source", metavar="JSON|@FILE|-", help="The input, as JSON.")
@click.option("--id", "run_id", help="The same id with the same flow and input is the same run.")
@click.option("--queue", help="Needed where the flow is offered on several queues.")
@click.option("--delay", type=DURATION, help="Begin so much later, by the clock of Redis.")
@click.option(
    "--at",
    type=click.DateTime([*FORMATS, *(f"{f}%z" for f in FORMATS[1:])]),
    help="Begin then: UTC, unless it names its time zone.",
)
@click.option(
    "--priority",
    type=click.Choice([priority.value for priority in Priority]),
    default=Priority.NORMAL.value,
    show_default=True,
    help="Of its nodes that say none themselves.",
)
@click.option("--unique", metavar="KEY", help="No two open runs of FLOW with this key.")
@click.option(
    "--if-running",
    type=click.Choice(IF_RUNNING),
    help="With --unique: get the open run (existing, the default), fail, or cancel it.",
)
@click.option("--period", type=DURATION, help="With --unique: so long after a start, too.")
@click.option(
    "--debounce", type=DURATION, help="Starts with one --key are one run, which begins after this."
)
@click.option("--key", help="With --debounce: what the starts share.")
@click.option("--max-wait", type=DURATION, help="With --debounce: after so long at the latest.")
@click.option("--wait", is_flag=True, help="Wait for the end and print the result as JSON.")
@click.option(
    "--timeout", type=DURATION, default="30s", show_default=True, help="How long --wait waits."
)
@click.option(
    "--durability",
    type=click.Choice([level.value for level in Durability]),
    default=Durability.FAST.value,
    show_default=True,
    help="What must hold before the start, and with --wait its result, is acknowledged.",
)
@json_option
@target_options
def start(
    target: Target,
    flow: str,
    source: str | None,
    run_id: str | None,
    queue: str | None,
    delay: float | None,
    at: datetime | None,
    priority: str,
    unique: str | None,
    if_running: IfRunning | None,
    period: float | None,
    debounce: float | None,
    key: str | None,
    max_wait: float | None,
    wait: bool,
    timeout: float,
    durability: str,
    as_json: bool,
) -> None:
    """Start a run of FLOW and print its id.

    With --wait the id goes to stderr and the result, as JSON, to stdout.
    """
    value = read_value(source, "--input") if source is not None else None
    level = Durability(durability)
    try:
        alone = _unique(unique, if_running, period)
        together = _debounce(key, debounce, max_wait)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    moment = at.replace(tzinfo=at.tzinfo or UTC) if at is not None else None

    async def work(client: Client) -> Exit:
        try:
            run = await client.start(
                flow,
                value,
                id=run_id,
                queue=queue,
                delay=delay,
                at=moment,
                priority=Priority(priority),
                unique=alone,
                debounce=together,
                durability=level,
            )
        except ValueError as error:  # an id that cannot be one
            raise click.UsageError(str(error)) from None
        if wait:
            return await _wait(run, timeout, level, as_json)
        if as_json:
            print_json({"id": run.id, "flow": flow})
        else:
            click.echo(run.id)
        return Exit.OK

    sys.exit(target.run(work))


def _unique(key: str | None, if_running: IfRunning | None, period: float | None) -> Unique | None:
    """Raises UsageError, ValueError."""
    if key is None:
        if if_running is not None or period is not None:
            raise click.UsageError("--if-running and --period need --unique KEY")
        return None
    return Unique(key, if_running or "existing", period)


def _debounce(key: str | None, wait: float | None, max_wait: float | None) -> Debounce | None:
    """Raises UsageError, ValueError."""
    if key is None or wait is None:
        if key is not None or wait is not None or max_wait is not None:
            raise click.UsageError("--debounce and --key go together, and --max-wait with them")
        return None
    return Debounce(key, wait, max_wait)


async def _wait(run: FlowRun[Any], timeout: float, level: Durability, as_json: bool) -> Exit:
    if not as_json:
        click.echo(run.id, err=True)
    try:
        result = await run.result(timeout=timeout, durability=level)
    except FlowFailed as failed:
        await _say_failure(run, failed, as_json)
        return Exit.FAILED
    except TimeoutError:
        fail(f"run {run.id!r} has not ended in {humanize(timeout)}; it goes on", Exit.TIMEOUT)
    if as_json:
        print_json({"id": run.id, "status": RunStatus.COMPLETED, "result": result, "error": None})
    else:
        click.echo(to_json(result))
    return Exit.OK


async def _say_failure(run: FlowRun[Any], failed: FlowFailed, as_json: bool) -> None:
    if as_json:
        status = await run.status()
        print_json({"id": run.id, "status": status, "result": None, "error": failed.error})
    if failed.error is not None and failed.error.traceback:
        click.echo(failed.error.traceback.rstrip(), err=True)
    say_error(str(failed))
