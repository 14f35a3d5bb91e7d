"""Admission: what a node asks of its limits, and what follows from what they grant. Pure.

A node asks for its places first (concurrency limits), and for its start time (rate limits) when it
has them all: so nobody takes a token and then waits for a place. One that must wait for its time
gives its places back meanwhile; it has its ticket, and is before later ones when it comes again.

A node holds what it was told in its record, as text: of each rate limit `reserved:<time>:<shift>`,
or `line:<time>:<shift>`, with commas between; behind that `+<ticket>:<number of the limit>` where
it waits for a place, `=<ticket>` where it waits for its time. It comes back with that and asks
again.

Of several limits all must grant a start at about the same time. What the last of them grants is
kept, what others grant for earlier is given back; there it has had its turn in line, and does not
queue up again. Else whoever waits for one of two would be a newcomer to both each time it comes
back, and behind its own place in the line for ever.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from resolute.engine.bound import Bound
from resolute.model.plan import LimitPlan
from resolute.store.limits import Ask, Grant
from resolute.store.places import Seat, Spot

LONGEST_KEY = 1_000  # characters of what splits a limit
LONGEST_TURN = 1800.0  # s; see turn_ms
SHORT = 0.05  # s; a wait up to this is slept, a longer one holds no slot
RESERVED, IN_LINE = "reserved", "line"  # what a node holds that comes back at a time it was given

_HOLD = re.compile(r"([^+=]*)(?:\+(\d+):(\d+)|=(\d+))?")

Bucket = tuple[LimitPlan, str]  # a limit, and what splits it by the input


def buckets_of(bound: Bound, value: Any) -> list[Bucket]:
    """The buckets of a node with this input; raises what the user's key function raises.

    Also ValueError for a key that none can have.
    """
    pairs = zip(bound.plan.limits, bound.limit_keys, strict=True)
    return [(limit, _key(key, value, limit.bucket)) for limit, key in pairs]


def _key(key: Callable[[Any], str] | None, value: Any, limit: str) -> str:
    """What splits a limit for this input. Raises ValueError, which is then this node's alone."""
    if key is None:
        return ""
    text = str(key(value))
    if len(text) > LONGEST_KEY:
        raise ValueError(
            f"key of limit {limit!r}: expected at most {LONGEST_KEY:,} characters,"
            f" got {len(text):,}"
        )
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"key of limit {limit!r}: expected text, got {text!r}") from None
    return text


def asks_of(hold: str, buckets: int) -> Sequence[tuple[Ask, int, int]]:
    """What a node that holds `hold` asks of each of its `buckets`, in their order."""
    told = read_hold(hold).rate.split(",")
    if len(told) != buckets:
        return [(Ask.NEW, 0, 0)] * buckets
    return [_ask_of(one) for one in told]


def _ask_of(told: str) -> tuple[Ask, int, int]:
    try:
        kind, time, shift = told.split(":")
        return (Ask.CONFIRM if kind == RESERVED else Ask.RETURNING, int(time), int(shift))
    except ValueError:
        return (Ask.NEW, 0, 0)  # its record is damaged; the others of the batch are not


def is_granted(grants: Collection[Grant]) -> bool:
    return all(grant.granted for grant in grants)


def wait_of(grants: Collection[Grant]) -> float:
    """Seconds from the answer to the latest time granted; below 0 if that is past."""
    return max(grant.time - grant.now for grant in grants) / 1_000_000


def is_kept(grant: Grant, grants: Collection[Grant]) -> bool:
    """Whether a node that must come back keeps this reservation, since it is for when it does."""
    return grant.granted and wait_of(grants) - wait_of([grant]) <= SHORT


def hold_of(grants: Collection[Grant]) -> str:
    """What a node keeps of its limits that must come back; the grants are in their order."""
    return _joined([RESERVED if is_kept(one, grants) else IN_LINE for one in grants], grants)


def line_of(grants: Collection[Grant]) -> str:
    """What a node keeps that was granted its start and missed it: its turns in line."""
    return _joined([IN_LINE] * len(grants), grants)


def _joined(kinds: Sequence[str], grants: Collection[Grant]) -> str:
    parts = zip(kinds, grants, strict=True)
    return ",".join(f"{kind}:{grant.time}:{grant.shift}" for kind, grant in parts)


@dataclass(frozen=True, slots=True)
class Hold:
    """What a record holds, taken apart; `limit` is the number of the one it waits in line of."""

    rate: str = ""
    ticket: int = 0
    limit: int | None = None


def read_hold(text: str) -> Hold:
    """What a node was told; nothing where that cannot be read."""
    found = _HOLD.fullmatch(text)
    if found is None:
        return Hold()
    rate, in_line, limit, ticket = found.groups()
    return Hold(rate, int(in_line or ticket or 0), None if limit is None else int(limit))


def spots_of(bound: Bound, value: Any) -> list[Spot]:
    """Where a node with this input needs a place; raises what `buckets_of` does."""
    return [Spot(limit, _key(key, value, limit.name)) for limit, key in bound.places]


def reserved_in(hold: str, buckets: Sequence[Bucket]) -> list[tuple[Bucket, int, int]]:
    """Where a node has reserved its start: the bucket, time and shift of each."""
    asks = zip(buckets, asks_of(hold, len(buckets)), strict=True)
    return [(bucket, time, shift) for bucket, (ask, time, shift) in asks if ask is Ask.CONFIRM]


def hold_in_line(hold: str, seats: Sequence[Seat]) -> str:
    """What a node keeps that held `hold`, and whose last answer was that it must wait.

    A start that it had reserved is given up; its turn among those who wait for a token is not.
    """
    limit = len(seats) - 1  # it was asked no further
    rate = read_hold(hold).rate.replace(f"{RESERVED}:", f"{IN_LINE}:")
    return f"{rate}+{ticket_of(seats)}:{limit}"


def hold_for_time(rate: str, seats: Sequence[Seat]) -> str:
    """What a node keeps that had its places and waits for its start; `rate` is from `hold_of`."""
    return f"{rate}={ticket_of(seats)}" if seats else rate


def ticket_of(seats: Sequence[Seat]) -> int:
    """When it asked first: with that it asks all of its limits."""
    return min(seat.ticket for seat in seats)


def turn_ms(seats: Sequence[Seat], lease: float) -> int:
    """When a node that waits for a place asks again though nobody woke it; `lease` in s.

    That is for when the word was lost. The more are before it, the later: so that however many
    wait, only a few of them ask in any second.
    """
    return round(1000 * min(LONGEST_TURN, lease * (1 + seats[-1].before / 5)))


def delay_ms(wait: float) -> int:
    """When a node comes back that waits so many seconds: a little before its time.

    Rounded up: a moment sooner, and it would have to come back once more.
    """
    return max(1, math.ceil((wait - SHORT) * 1000))
