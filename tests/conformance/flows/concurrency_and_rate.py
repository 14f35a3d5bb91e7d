"""A node under limits of both kinds starts with its places and its time; a failure frees them."""

from __future__ import annotations

import asyncio

from resolute import ConcurrencyLimit, RateLimit, RetryPolicy, current, node
from tests.conformance.case import Case, builder

ONE = ConcurrencyLimit("concurrency-one", 1)
TWO = ConcurrencyLimit("concurrency-two", 2)
RETRY = RetryPolicy(max_attempts=2, initial_interval="10ms", jitter=0)
running: set[int] = set()


@node("work", rate_limit=RateLimit(1, "100ms", burst=2), concurrency=(TWO, ONE), retry=RETRY)
async def work(number: int) -> int:
    if number == 1 and current().attempt == 1:
        raise ConnectionError("once")
    running.add(number)
    await asyncio.sleep(0.01)  # in a node
    together = len(running)
    running.discard(number)
    return together


CASE = Case(
    builder("concurrency-and-rate")
    .then_parallel("all", *(work.with_input(n).as_(f"w{n}") for n in range(3)))
    .build(),
    output={"w0": 1, "w1": 1, "w2": 1},
    history="""
        1.0 all/work completed 1
        1.1 all/work completed 2 [ConnectionError]
        1.2 all/work completed 1
    """,
)
