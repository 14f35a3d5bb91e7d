"""Who waits for a place when its run is cancelled is skipped."""

from __future__ import annotations

import asyncio

from resolute import ConcurrencyLimit, RunStatus, node
from tests.conformance.case import Case, builder

ONE = ConcurrencyLimit("concurrency-cancelled", 1)


@node("first", concurrency=ONE)
async def first() -> None:
    await asyncio.sleep(60)  # in a node


CASE = Case(
    builder("concurrency-cancelled")
    .then_parallel("all", first, *(first.as_(f"later{n}") for n in range(2)))
    .build(),
    cancel_while="first",
    status=RunStatus.CANCELLED,
    error="Cancelled",
    history="""
        1.0 all/first failed 1 [Cancelled]
        1.1 all/first skipped 0
        1.2 all/first skipped 0
    """,
)
