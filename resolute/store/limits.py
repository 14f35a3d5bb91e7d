"""Token buckets: reserving start times, confirming them, giving them back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from resolute.model.plan import LimitPlan
from resolute.status import Code
from resolute.store.script import Item, pack, pack_item
from resolute.store.store import Store

HORIZON_US = 10_000_000  # how far ahead a start is reserved
IDLE_TTL_MS = 60_000  # a full bucket is forgotten after this


class Ask(IntEnum):
    """What is asked of a bucket; take_tokens.lua has the same numbers."""

    NEW = 0
    RETURNING = 1
    CONFIRM = 2
    GIVE_BACK = 3


class TokenItem(Item):
    kind: int
    time: int
    shift: int


@dataclass(slots=True)
class Grant:
    """A start time in µs of Redis's clock; or, not `granted`, when to come back.

    `shift` is by how much push-backs had moved the bucket's times by then.
    """

    granted: bool
    time: int
    shift: int
    now: int


async def take(
    store: Store, limit: LimitPlan, key: str, asks: Sequence[tuple[Ask, int, int]]
) -> list[Grant]:
    """Ask one bucket for a batch: (what, time, shift) each, the last two of an earlier grant."""
    bucket = store.keys.meta.bucket(limit.bucket, key)
    common = pack(limit.interval_us, limit.burst, HORIZON_US, IDLE_TTL_MS)
    items = [pack_item(TokenItem(int(kind), time, shift)) for kind, time, shift in asks]
    reply = await store.call("take_tokens", [bucket], common, items)
    now, shift = int(reply[0]), int(reply[1])
    return [
        Grant(answer[0] == Code.OK.encode(), int(answer[1]), shift, now) for answer in reply[2:]
    ]


async def push_back(store: Store, limit: LimitPlan, key: str, pause: float) -> None:
    """Let nobody start under this limit for `pause` seconds."""
    bucket = store.keys.meta.bucket(limit.bucket, key)
    pause_us = round(pause * 1_000_000)
    common = pack(limit.interval_us, limit.burst, pause_us, IDLE_TTL_MS)
    await store.call("push_back", [bucket], common)
