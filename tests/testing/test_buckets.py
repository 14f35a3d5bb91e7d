"""Buckets in memory answer as those on a server do, ask for ask."""

from __future__ import annotations

import random

import pytest

from resolute.model.plan import LimitPlan
from resolute.store import limits
from resolute.store.limits import IDLE_TTL_MS, Ask, Grant
from resolute.store.script import pack
from resolute.store.store import Store
from resolute.testing.buckets import MemoryBuckets


@pytest.mark.parametrize("partitions", [1], indirect=True)
@pytest.mark.parametrize("seed", range(5))
async def test_a_bucket_in_memory_answers_as_one_on_the_server(store: Store, seed: int):
    chance = random.Random(seed)
    limit = LimitPlan("api", interval_us=chance.choice([700, 90_000, 3_000_000]), burst=3)
    now = 0
    memory = MemoryBuckets(lambda: now)
    given: list[Grant] = []
    pause = 0.0
    for _ in range(150):
        if chance.random() < 0.05:
            pause += 0.5  # longer than all before, so that the answer tells the time
            now = await _push_back(store, limit, pause) - round(pause * 1_000_000)
            memory.push_back((limit, ""), pause)
            continue
        ask = _some_ask(chance, given)
        (there,) = await limits.take(store, limit, "", [ask])
        now = there.now
        here = memory.take((limit, ""), ask)
        assert (here.granted, here.time, here.shift) == (there.granted, there.time, there.shift)
        if ask[0] is not Ask.GIVE_BACK:
            given.append(there)


def _some_ask(chance: random.Random, given: list[Grant]) -> tuple[Ask, int, int]:
    """A newcomer, or one who was given something."""
    if not given or chance.random() < 0.5:
        return (Ask.NEW, 0, 0)
    grant = given.pop(chance.randrange(len(given)))
    kind = chance.choice([Ask.CONFIRM, Ask.GIVE_BACK]) if grant.granted else Ask.RETURNING
    return (kind, grant.time, grant.shift)


async def _push_back(store: Store, limit: LimitPlan, pause: float) -> int:
    """When the bucket opens again, in µs of the server's clock."""
    common = pack(limit.interval_us, limit.burst, round(pause * 1_000_000), IDLE_TTL_MS)
    reply = await store.call("push_back", [store.keys.meta.bucket(limit.bucket)], common)
    return int(reply[1])
