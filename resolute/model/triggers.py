"""What starts a flow."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast
from zoneinfo import ZoneInfo

from croniter import CroniterBadDateError, CroniterError, croniter

from resolute.ids import check_name
from resolute.model.claims import (
    OVERLAPS,
    Debounce,
    Overlap,
    Unique,
    as_unique,
    steps_to,
)
from resolute.model.paths import type_at
from resolute.priority import PriorityName, check_priority


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
    priority: PriorityName | None = None
    overlap: Overlap = "allow"

    def problem(self) -> str | None:
        """What is wrong with it, or None."""
        if self.overlap not in OVERLAPS:
            words = ", ".join(map(repr, OVERLAPS))
            return f"schedule {self.cron!r}: expected an overlap of {words}, got {self.overlap!r}"
        try:
            ZoneInfo(self.timezone)
        except (KeyError, ValueError, OSError):
            return f"schedule: unknown time zone {self.timezone!r}"
        wrong = _priority_problem(f"schedule {self.cron!r}", self.priority)
        if wrong:
            return wrong
        if not self.cron.startswith("@") and len(self.cron.split()) not in (5, 6):
            return f"schedule: expected 5 fields, or 6 with seconds, got {self.cron!r}"
        try:
            next_tick(self.cron, self.timezone, 0.0)
        except CroniterBadDateError:
            return f"schedule: {self.cron!r} is never due"
        except (CroniterError, ValueError) as error:
            return f"schedule: cannot parse cron expression {self.cron!r}: {error}"
        return None


@dataclass(frozen=True)
class Webhook:
    """Started by an HTTP request to a coordinator that serves `--http`."""

    path: str
    secret: str | None
    priority: PriorityName | None = None
    unique: Unique | None = None
    debounce: Debounce | None = None

    def problem(self) -> str | None:
        """What is wrong with it, or None."""
        if not _PATH.fullmatch(self.path) or self.path.startswith("/api/"):
            return (
                f"webhook: expected a path such as /github, of letters, digits, - _ . and /,"
                f" not below /api/, got {self.path!r}"
            )
        if self.secret is not None and not _VARIABLE.fullmatch(self.secret):
            return (
                f'webhook {self.path!r}: expected secret="env:NAME", the variable of resolute-coord'
                " that has it: a secret in the code would be kept in Redis"
            )
        what = f"webhook {self.path!r}"
        wrong = _priority_problem(what, self.priority)
        return wrong or _sharing_problem(what, self.unique, self.debounce)

    def key_problem(self, input_type: Any) -> str | None:
        """Why a flow's input can have no such key, or None."""
        return _key_problem(f"webhook {self.path!r}", self.unique or self.debounce, input_type)


@dataclass(frozen=True)
class Signalled:
    """Started by a signal to no run: `Client.trigger`."""

    name: str
    priority: PriorityName | None = None
    unique: Unique | None = None
    debounce: Debounce | None = None

    def problem(self) -> str | None:
        """What is wrong with it, or None."""
        try:
            check_name("signal", self.name)
        except ValueError as error:
            return str(error)
        what = f"signal {self.name!r}"
        wrong = _priority_problem(what, self.priority)
        return wrong or _sharing_problem(what, self.unique, self.debounce)

    def key_problem(self, input_type: Any) -> str | None:
        """Why a flow's input can have no such key, or None."""
        return _key_problem(f"signal {self.name!r}", self.unique or self.debounce, input_type)


Trigger = Manual | Schedule | Webhook | Signalled

_PATH = re.compile(r"(/[A-Za-z0-9._-]+)+")
_VARIABLE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*")


def _priority_problem(what: str, priority: PriorityName | None) -> str | None:
    try:
        check_priority("normal" if priority is None else priority)
    except ValueError as error:
        return f"{what}: {error}"
    return None


def manual(name: str = "manual") -> Manual:
    """A trigger by `Client.start`."""
    return Manual(name)


def schedule(
    cron: str,
    *,
    timezone: str = "UTC",
    input: Any = None,
    priority: PriorityName | None = None,
    overlap: Overlap = "allow",
) -> Schedule:
    """A trigger by the clock. `timezone` is an IANA name.

    `cron` has five fields (minute, hour, day, month, weekday), or six with seconds
    at the end; or "@hourly", "@daily", "@weekly", "@monthly", "@yearly".

    The flow gets `input`; without it, the input type's defaults. Its nodes have `priority`, but for
    those that have their own.

    Where the run of a tick before is still open, `overlap` says what the next does: "allow" starts
    beside it, "skip" starts nothing, "replace" cancels it and begins when it has ended.
    """
    if not isinstance(cast("object", cron), str):
        raise TypeError(f'schedule: expected a cron line such as "0 4 * * *", got {cron!r}')
    return Schedule(cron, timezone, input, priority, overlap)


def signal(
    name: str,
    *,
    priority: PriorityName | None = None,
    unique: Unique | str | None = None,
    debounce: Debounce | None = None,
) -> Signalled:
    """A trigger by `Client.trigger(name, payload)`, `resolute trigger` or HTTP.

    The payload is the flow's input. All flows that have the name start, this one with `priority`.
    `unique` and `debounce` are as those of `Client.start`; ``input_data("path")`` as their key is
    that part of the payload.
    """
    return Signalled(name, priority, _as_unique(unique), debounce)


def webhook(
    path: str,
    *,
    secret: str | None,
    priority: PriorityName | None = None,
    unique: Unique | str | None = None,
    debounce: Debounce | None = None,
) -> Webhook:
    """A trigger by HTTP: ``POST path`` to a coordinator with `--http`; the JSON body is the input.

    `secret` is ``"env:NAME"``: the coordinator's variable with the key of the sender's HMAC-SHA256
    signature, as GitHub, Stripe and others send it. None takes deliveries from anybody. The runs
    have `priority`. `unique` and `debounce` are as those of `Client.start`; ``input_data("path")``
    as their key is that part of the body.
    """
    return Webhook(path, secret, priority, _as_unique(unique), debounce)


def _as_unique(unique: Unique | str | None) -> Unique | None:
    return None if unique is None else as_unique(unique)


def _key_problem(what: str, how: Unique | Debounce | None, input_type: Any) -> str | None:
    if how is None:
        return None
    try:
        type_at(input_type, steps_to(how.key))
    except LookupError as error:
        return f"{what}: its key {how.key!r}: the input {error}"
    return None


def _sharing_problem(what: str, unique: Unique | None, debounce: Debounce | None) -> str | None:
    if unique is not None and debounce is not None:
        return f"{what}: expected a unique key or a debounce, got both"
    return None


def latest_tick(cron: str, timezone: str, now: float) -> float:
    """The last tick at or before `now`, both in seconds of Unix time."""
    zone = ZoneInfo(timezone)
    # croniter's get_prev is strictly before its start: a second later, the tick at `now` counts.
    return _step(cron, zone, int(now) + 1, lambda ticks: ticks.get_prev(datetime))


def next_tick(cron: str, timezone: str, now: float) -> float:
    """The first tick after `now`, both in seconds of Unix time."""
    return _step(cron, ZoneInfo(timezone), now, lambda ticks: ticks.get_next(datetime))


def _step(cron: str, zone: ZoneInfo, start: float, step: Callable[[croniter], datetime]) -> float:
    """The tick that `step` leads to from `start`.

    When the clocks go back an hour comes twice. As in cron(8), a schedule at fixed hours ticks only
    in the first; one for every hour, or every few, in both.
    """
    while True:
        ticks = croniter(cron, datetime.fromtimestamp(start, zone))
        start = step(ticks).timestamp()
        local = datetime.fromtimestamp(start, zone)
        if not local.fold or _is_for_any_hour(cron):
            return start


def _is_for_any_hour(cron: str) -> bool:
    fields = cron.split()
    return fields[1].startswith("*") if len(fields) > 1 else cron == "@hourly"


_TICK_ID = re.compile(r"(.+):cron([0-9]{1,4}):([0-9]{8}T[0-9]{6}Z)(?:\.[0-9]{1,6})?")


def tick_of(run_id: str, flow: str) -> tuple[int, int] | None:
    """The schedule and the tick, in ms, that a run of a flow has its id from; None for others."""
    match = _TICK_ID.fullmatch(run_id)
    if match is None or match[1] != flow:
        return None
    try:
        moment = datetime.strptime(match[3], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    return int(match[2]), round(moment.timestamp() * 1000)


def tick_id(flow: str, index: int, tick: float) -> str:
    """The run id of a tick: the same on every coordinator."""
    return f"{flow}:cron{index}:{datetime.fromtimestamp(tick, UTC):%Y%m%dT%H%M%SZ}"
