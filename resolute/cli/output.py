"""What all commands print with: consoles, tables, times, colours, JSON."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any, cast

import click
import msgspec
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from resolute.errors import ErrorInfo
from resolute.status import NodeStatus, RunStatus

WIDE = 200  # columns where nobody looks: a pipe must not cut ids
GAP = 2  # columns between those of a table

_LOOKS: dict[str, tuple[str, str]] = {
    RunStatus.RUNNING: ("●", "cyan"),
    RunStatus.FAILING: ("●", "yellow"),
    RunStatus.COMPENSATING: ("↺", "yellow"),
    RunStatus.COMPLETED: ("✓", "green"),
    RunStatus.FAILED: ("✗", "red"),
    RunStatus.CANCELLED: ("⊘", "magenta"),
    RunStatus.TERMINATED: ("■", "magenta"),
    NodeStatus.READY: ("○", "dim"),
    NodeStatus.WAITING: ("◔", "yellow"),
    NodeStatus.SKIPPED: ("–", "dim"),  # noqa: RUF001 - a dash is meant
}


def console() -> Console:
    """A console on stdout as it is now."""
    made = Console(highlight=False, markup=False, emoji=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = WIDE
    return made


def status_text(status: RunStatus | NodeStatus) -> Text:
    """A status with its sign and colour."""
    sign, style = _LOOKS[status]
    return Text(f"{sign} {status.value}", style=style, no_wrap=True)


def style_of(status: RunStatus | NodeStatus) -> str:
    return _LOOKS[status][1]


def make_table(*columns: str | Column) -> Table:
    """A table without lines, as wide as it must be."""
    return Table(
        *columns, box=None, padding=(0, GAP, 0, 0), pad_edge=False, header_style="bold dim",
        show_header=bool(columns),
    )  # fmt: skip


def room_beside(screen: Console, table: Table) -> int:
    """How many columns of the screen are left for another column of the table."""
    used = Measurement.get(screen, screen.options.update(max_width=10_000), table).maximum
    return max(0, screen.width - used - GAP)


def local_time(time: float, now: float) -> str:
    """Seconds of Unix time in local time; the day only where it is not today."""
    moment, today = datetime.fromtimestamp(time), datetime.fromtimestamp(now)
    if moment.date() == today.date():
        return moment.strftime("%H:%M:%S")
    return moment.strftime("%Y-%m-%d %H:%M")


def full_time(time: float) -> str:
    """Seconds of Unix time in local time, with day and zone."""
    return datetime.fromtimestamp(time).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def error_text(error: ErrorInfo | None) -> str:
    """An error in one line."""
    return " ".join(str(error).split()) if error else ""


def counted(count: int, noun: str) -> str:
    """``1 process``, ``1,024 processes``."""
    if count == 1:
        return f"1 {noun}"
    ending = "es" if noun.endswith("s") else "s"
    return f"{count:,} {noun}{ending}"


def as_data(value: Any) -> Any:
    """Structs and dataclasses as dicts by field name, also structs that travel as arrays."""
    match value:
        case msgspec.Struct():
            return {name: as_data(getattr(value, name)) for name in value.__struct_fields__}
        case dict():
            return {k: as_data(v) for k, v in cast("dict[Any, Any]", value).items()}
        case list() | tuple():
            return [as_data(item) for item in cast("Sequence[Any]", value)]
        case _ if is_dataclass(value) and not isinstance(value, type):
            return {field.name: as_data(getattr(value, field.name)) for field in fields(value)}
        case _:
            return value


def to_json(value: Any, *, indent: int = 2) -> str:
    """JSON text; `indent` 0 puts it on one line. What JSON cannot hold is shown by its repr."""
    data = msgspec.json.encode(as_data(value), enc_hook=repr)
    return str(msgspec.json.format(data, indent=indent) if indent else data, "utf-8")


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    click.echo(to_json(value))
