"""Of nodes under a concurrency limit no more run at one time; waiting uses up no attempt."""

from __future__ import annotations

import asyncio

from resolute import ConcurrencyLimit, node
from tests.conformance.case import Case, builder

running: set[int] = set()


@node("work", concurrency=ConcurrencyLimit("concurrency", 2))
async def work(number: int) -> int:
    running.add(number)
    await asyncio.sleep(0.01)  # in a node
    together = len(running)
    running.discard(number)
    return min(together, 3)


CASE = Case(
    builder("concurrency")
    .then_parallel("all", *(work.with_input(n).as_(f"w{n}") for n in range(5)))
    .then(work.with_input(5).as_("alone"))
    .build(),
    output=1,
    history="""
        1.0 all/work completed 1
        1.1 all/work completed 1
        1.2 all/work completed 1
        1.3 all/work completed 1
        1.4 all/work completed 1
        2.0 work completed 1
    """,
)
