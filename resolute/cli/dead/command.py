"""`resolute dead ls`, `show`, `retry` and `drop`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import click
from rich.console import Console
from rich.table import Column, Table

from resolute.cli.dead.hexdump import hex_lines
from resolute.cli.exits import Exit, fail
from resolute.cli.output import (
    as_data,
    console,
    counted,
    full_time,
    local_time,
    make_table,
    print_json,
    room_beside,
)
from resolute.cli.target import Target, json_option, target_options
from resolute.client import Client, DeadLetter
from resolute.client.letters import parse_letter_id
from resolute.store import registry

MIN_WHY = 16  # columns
DUMPED = 4_096  # bytes; `show --raw` gives them all


@click.group(invoke_without_command=True)
@click.pass_context
def dead(context: click.Context) -> None:
    """Dead letters: events and entries that nobody could use.

    An ID is that of a letter, as `resolute dead ls` shows it.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def check_id(_: click.Context, __: click.Parameter, value: str) -> str:
    """An argument that is the id of a letter. Raises BadParameter."""
    try:
        parse_letter_id(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


def check_ids(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> tuple[str, ...]:
    """Arguments that are ids of letters. Raises BadParameter."""
    return tuple(check_id(context, parameter, one) for one in value)


@dead.command("ls")
@click.option(
    "--limit", type=click.IntRange(1, 10_000), default=50, show_default=True, help="At most."
)
@json_option
@target_options
def ls(target: Target, limit: int, as_json: bool) -> None:
    """List dead letters, newest first."""

    async def work(client: Client) -> tuple[Sequence[DeadLetter], float]:
        letters = await client.dead_letters(limit=limit)
        return letters, await registry.server_ms(client.store) / 1000

    letters, now = target.run(work)
    if as_json:
        print_json(letters)
    elif not letters:
        click.echo("no dead letters", err=True)
    else:
        screen = console()
        room = room_beside(screen, _table(letters, now, None))
        screen.print(_table(letters, now, max(MIN_WHY, room)))
        if len(letters) == limit:
            click.echo("there may be more: --limit", err=True)


def _table(letters: Sequence[DeadLetter], now: float, why_width: int | None) -> Table:
    table = make_table(
        Column("id", no_wrap=True),
        Column("buried", no_wrap=True),
        Column("origin", overflow="fold"),
        Column("run", overflow="fold"),
        Column("node", overflow="fold"),
    )
    if why_width is not None:
        table.add_column("why", no_wrap=True, overflow="ellipsis", max_width=why_width)
    for letter in letters:
        why = [" ".join(letter.why.split())] if why_width is not None else []
        when = local_time(letter.buried, now)
        table.add_row(letter.id, when, letter.origin, letter.run, letter.node, *why)
    return table


@dead.command()
@click.argument("letter_id", metavar="ID", callback=check_id)
@click.option("--raw", "only_raw", is_flag=True, help="Write its raw bytes, and nothing else.")
@json_option
@target_options
def show(target: Target, letter_id: str, only_raw: bool, as_json: bool) -> None:
    """Show a dead letter: why it is one, what it says, and its raw bytes.

    With --json the raw bytes are in Base64.
    """
    if only_raw and as_json:
        raise click.UsageError("--raw and --json exclude each other")
    letter = target.run(lambda client: client.dead_letter(letter_id))
    if as_json:
        print_json(letter)
    elif only_raw:
        click.echo(letter.raw or b"", nl=False)
    else:
        _print(letter, console())


def _print(letter: DeadLetter, screen: Console) -> None:
    raw = letter.raw or b""
    table = make_table()
    table.add_column(style="bold dim", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("dead letter", letter.id)
    table.add_row("buried", full_time(letter.buried))
    table.add_row("origin", letter.origin)
    table.add_row("why", letter.why)
    if letter.content is None:
        table.add_row("content", "cannot be read")
    else:
        if letter.node:
            table.add_row("node", letter.node)
        for name, value in as_data(letter.content).items():
            if value == "":
                continue
            table.add_row("run" if name == "flow" else name, str(value))
    table.add_row("size", counted(len(raw), "byte"))
    screen.print(table)
    screen.print()
    for line in hex_lines(raw[:DUMPED]):
        screen.print(line, soft_wrap=True)
    if len(raw) > DUMPED:
        screen.print(f"… {len(raw) - DUMPED:,} more: --raw writes them all")


@dead.command()
@click.argument("letter_ids", metavar="[ID]...", nargs=-1, callback=check_ids)
@click.option("--all", "every", is_flag=True, help="Every letter that is there now, oldest first.")
@json_option
@target_options
def retry(target: Target, letter_ids: tuple[str, ...], every: bool, as_json: bool) -> None:
    """Put dead letters back where they came from, as they are."""

    async def work(client: Client) -> Sequence[str]:
        return await client.retry_dead_letters(*letter_ids, all=every)

    _remove(target, work, "retried", letter_ids, every, as_json)


@dead.command()
@click.argument("letter_ids", metavar="[ID]...", nargs=-1, callback=check_ids)
@click.option("--all", "every", is_flag=True, help="Every letter that is there now.")
@json_option
@target_options
def drop(target: Target, letter_ids: tuple[str, ...], every: bool, as_json: bool) -> None:
    """Forget dead letters."""

    async def work(client: Client) -> Sequence[str]:
        return await client.drop_dead_letters(*letter_ids, all=every)

    _remove(target, work, "dropped", letter_ids, every, as_json)


def _remove(
    target: Target,
    work: Callable[[Client], Awaitable[Sequence[str]]],
    what: str,
    letter_ids: Sequence[str],
    every: bool,
    as_json: bool,
) -> None:
    """Do it, and say which letters were there."""
    if bool(letter_ids) == every:
        raise click.UsageError("expected IDs or --all")
    done = target.run(work)
    unknown = [one for one in dict.fromkeys(letter_ids) if one not in done]
    if as_json:
        print_json({what: done, "unknown": unknown})
    elif done or every:
        click.echo(f"{counted(len(done), 'dead letter')} {what}")
    if unknown:
        fail(f"no such dead letters: {', '.join(unknown)}", Exit.UNKNOWN)
