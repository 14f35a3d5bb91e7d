"""What starts a flow."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from croniter import CroniterError, croniter


@dataclass(frozen=True)
class Manual:
    """Started by a client. `name` says by whom, for people."""

    name: str = "manual"


@dataclass(frozen=True)
class Schedule:
    """Started by the coordinators at every tick of a cron expression in a time zone."""

    cron: str
    timezone: str = "UTC"
    input: Any = None

    def problem(self) -> str | None:
        """What is wrong with it, or None."""
        try:
            ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError):
            return f"schedule: unknown time zone {self.timezone!r}"
        try:
            croniter(self.cron)
        except (CroniterError, ValueError) as error:
            return f"schedule: cannot parse cron expression {self.cron!r}: {error}"
        return None


Trigger = Manual | Schedule


def manual(name: str = "manual") -> Manual:
    """A trigger by `Client.start`."""
    return Manual(name)


def schedule(cron: str, *, timezone: str = "UTC", input: Any = None) -> Schedule:
    """A trigger by the clock: `cron` has five fields, `timezone` is an IANA name.

    The flow gets `input`; without it, the input type's defaults.
    """
    return Schedule(cron, timezone, input)


def latest_tick(cron: str, timezone: str, now: float) -> float:
    """The last tick at or before `now`, both in seconds of Unix time."""
    local = datetime.fromtimestamp(now, ZoneInfo(timezone))
    # croniter's get_prev is strictly before its start: a second later, the tick at `now` counts.
    start = local.fromtimestamp(int(now) + 1, ZoneInfo(timezone))
    return croniter(cron, start).get_prev(datetime).timestamp()


def next_tick(cron: str, timezone: str, now: float) -> float:
    """The first tick after `now`, both in seconds of Unix time."""
    local = datetime.fromtimestamp(now, ZoneInfo(timezone))
    return croniter(cron, local).get_next(datetime).timestamp()


def tick_id(flow: str, index: int, tick: float) -> str:
    """The run id of a tick: the same on every coordinator."""
    return f"{flow}:cron{index}:{datetime.fromtimestamp(tick, UTC):%Y%m%dT%H%M%SZ}"
