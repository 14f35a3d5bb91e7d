"""Spans of time as people write them: ``"2m"``, ``"1h30m"``, ``1.5`` (seconds), a timedelta."""

from __future__ import annotations

import math
import re
from datetime import timedelta

Duration = str | int | float | timedelta

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def seconds(value: Duration) -> float:
    """`value` in seconds. A bare number is seconds. Raises ValueError naming what was expected."""
    if isinstance(value, timedelta):
        total = value.total_seconds()
    elif isinstance(value, str):
        total = _parse(value)
    else:
        total = float(value)
    if not math.isfinite(total) or total < 0:
        raise ValueError(f"expected a duration of 0 or more, got {value!r}")
    return total


def milliseconds(value: Duration) -> int:
    """`value` in whole milliseconds, at least 1 unless it is 0."""
    total = seconds(value)
    return max(1, round(total * 1000)) if total else 0


def _parse(text: str) -> float:
    compact = text.strip().replace(" ", "")
    parts = _PART.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise ValueError(
            f'expected a duration such as "500ms", "30s", "2m" or "1h30m", got {text!r}'
        )
    return sum(float(number) * _UNITS[unit] for number, unit in parts)


def spell(span: int) -> str:
    """Whole milliseconds, exactly, as `seconds` reads them: ``7d``, ``1h30m``, ``1s500ms``."""
    parts: list[str] = []
    for unit, size in reversed(_UNITS.items()):
        count, span = divmod(span, round(size * 1000))
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def humanize(span: float) -> str:
    """Seconds as a short text for a table: ``0.4 ms``, ``12 ms``, ``3.2 s``, ``4m 10s``."""
    if span < 0.01:
        return f"{span * 1000:.1f} ms"
    if span < 1:
        return f"{span * 1000:.0f} ms"
    if span < 60:
        return f"{span:.1f} s"
    minutes, rest = divmod(round(span), 60)
    if minutes < 60:
        return f"{minutes}m {rest}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes}m"
