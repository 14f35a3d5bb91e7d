"""Spans of time as people write them: ``"2m"``, ``"1h30m"``, ``1.5`` (seconds), a timedelta."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import cast

Duration = str | int | float | timedelta

MOST = 10**10 * 86_400  # s; more is a mistake, and its milliseconds fit no 64 bits

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def seconds(value: Duration) -> float:
    """`value` in seconds. A bare number is seconds. Raises ValueError naming what was expected."""
    if isinstance(value, timedelta):
        total = value.total_seconds()
    elif isinstance(value, str):
        total = _parse(value)
    elif isinstance(cast("object", value), (int, float)):
        is_large = isinstance(value, int) and abs(value) > MOST  # perhaps for a float, too
        total = math.copysign(MOST + 1.0, 1 if value > 0 else -1) if is_large else float(value)
    else:
        raise TypeError(f'expected a duration such as 30 (seconds), "30s" or "2m", got {value!r}')
    if not math.isfinite(total) or total < 0:
        raise ValueError(f"expected a duration of 0 or more, got {value!r}")
    if total > MOST:
        raise ValueError(f"expected a duration of up to 10,000,000,000d, got {value!r}")
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
