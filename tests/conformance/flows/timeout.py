"""An attempt that overruns its timeout is cancelled, has failed, and is made again."""

from __future__ import annotations

import asyncio

from resolute import RetryPolicy, current, node
from tests.conformance.case import Case, builder


@node("slow", timeout="100ms", retry=RetryPolicy(initial_interval="10ms", max_attempts=2))
async def slow() -> str:
    if current().attempt == 1:
        await asyncio.sleep(60)
    return "in time"


CASE = Case(
    builder("timeout").then(slow).build(),
    output="in time",
    history="1.0 slow completed 2 [NodeTimeout]",
)
