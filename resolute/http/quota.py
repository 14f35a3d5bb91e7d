"""What the headers of an answer say of the limits of an API."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

LONGEST = 86_400.0  # s; a limit that resets later than this is not believed
_PREFIXES = ("RateLimit", "X-RateLimit")
_UNIX = 1e9  # what is above is a Unix time, and no span of seconds


def pause_of(headers: Mapping[str, str]) -> float | None:
    """Seconds until an API takes calls again; None where it takes them now.

    By RateLimit-Remaining and RateLimit-Reset, or with X- before them. A reset is a number of
    seconds or a Unix time, which is compared with the answer's own Date where it has one.
    """
    found = [span for prefix in _PREFIXES if (span := _pause(headers, prefix)) is not None]
    return max(found, default=None)


def _pause(headers: Mapping[str, str], prefix: str) -> float | None:
    remaining = _number(headers.get(f"{prefix}-Remaining"))
    reset = _number(headers.get(f"{prefix}-Reset"))
    if remaining is None or reset is None or remaining > 0:
        return None
    span = reset - _date(headers) if reset > _UNIX else reset
    return span if 0 < span <= LONGEST else None


def _number(text: str | None) -> float | None:
    try:
        number = float((text or "").split(",")[0].split(";")[0])
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _date(headers: Mapping[str, str]) -> float:
    """The time of the API, or ours."""
    try:
        return parsedate_to_datetime(headers.get("Date") or "").timestamp()
    except (ValueError, OverflowError):
        return time.time()
