"""Options as flags and variables give them, checked once: "expected X, got Y"."""

from __future__ import annotations

from typing import Any, cast

import click

from resolute.durations import seconds


class DurationType(click.ParamType[float]):
    """A flag such as ``15s`` or ``2m``, as seconds."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            span = seconds(float(value) if _is_number(value) else value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if span <= 0:
            self.fail(f"expected a duration above 0, got {value!r}", param, ctx)
        return span


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


class AddressType(click.ParamType[tuple[str, int]]):
    """A flag such as ``127.0.0.1:8081`` or ``:8081`` (loopback), as (host, port)."""

    name = "host:port"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        if isinstance(value, tuple):
            return cast("tuple[str, int]", value)
        host, colon, port = str(value).rpartition(":")
        if not colon or not port.isdigit() or int(port) > 65_535:
            self.fail(f"expected HOST:PORT, got {value!r}", param, ctx)
        return host.strip("[]") or "127.0.0.1", int(port)


DURATION = DurationType()
ADDRESS = AddressType()
