"""Admission: what a node asks of its limits, and what follows from what they grant. Pure.

A node holds what it was told in its record, as text: a reservation of a start time, or a place in
the line. It comes back with that and asks again.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from resolute.engine.attempt import Bound
from resolute.model.plan import LimitPlan
from resolute.store.limits import Ask, Grant

SHORT = 0.05  # s; a wait up to this is slept, a longer one holds no slot
RESERVED, IN_LINE = "reserved", "line"  # what a node holds that comes back at a time it was given

Bucket = tuple[LimitPlan, str]  # a limit, and what splits it by the input


def buckets_of(bound: Bound, value: Any) -> list[Bucket]:
    """The buckets of a node with this input; raises what the user's key function raises."""
    pairs = zip(bound.plan.limits, bound.limit_keys, strict=True)
    return [(limit, str(key(value)) if key else "") for limit, key in pairs]


def ask_of(hold: str, buckets: int) -> tuple[Ask, int, int]:
    """What a node that holds `hold` asks of each of its `buckets`."""
    if buckets > 1 or not hold:
        return (Ask.NEW, 0, 0)
    try:
        kind, time, shift = hold.split(":")
        return (Ask.CONFIRM if kind == RESERVED else Ask.RETURNING, int(time), int(shift))
    except ValueError:
        return (Ask.NEW, 0, 0)  # its record is damaged; the others of the batch are not


def is_granted(grants: Collection[Grant]) -> bool:
    return all(grant.granted for grant in grants)


def wait_of(grants: Collection[Grant]) -> float:
    """Seconds from the answer to the latest time granted; below 0 if that is past."""
    return max(grant.time - grant.now for grant in grants) / 1_000_000


def hold_of(grants: Collection[Grant]) -> str:
    """What a node keeps that must come back. Of two limits both must grant: it keeps nothing."""
    if len(grants) != 1:
        return ""
    (grant,) = grants
    return place(RESERVED if grant.granted else IN_LINE, grant)


def place(kind: str, grant: Grant) -> str:
    """A grant as a node's record holds it."""
    return f"{kind}:{grant.time}:{grant.shift}"


def delay_ms(wait: float) -> int:
    """When a node comes back that waits so many seconds: a little before its time.

    Rounded up: a moment sooner, and it would have to come back once more.
    """
    return max(1, math.ceil((wait - SHORT) * 1000))
