"""With a key a concurrency limit is one for each text: items of one tenant run one by one."""

from __future__ import annotations

import asyncio
from collections import Counter

from resolute import ConcurrencyLimit, node
from tests.conformance.case import Case, builder

TENANT = ConcurrencyLimit("concurrency-tenant", 1, key=lambda tenant: tenant)
running: Counter[str] = Counter()


@node("work", concurrency=TENANT)
async def work(tenant: str) -> int:
    running[tenant] += 1
    await asyncio.sleep(0.01)  # in a node
    together = running[tenant]
    running[tenant] -= 1
    return together


CASE = Case(
    builder("concurrency-by-key")
    .then_each("all", work, items=lambda _: ["a", "b", "a", "b", "a"])
    .build(),
    output=[1, 1, 1, 1, 1],
    history="""
        1.0 all.items completed 1
        2.0 all/work completed 1
        2.1 all/work completed 1
        2.2 all/work completed 1
        2.3 all/work completed 1
        2.4 all/work completed 1
    """,
)
