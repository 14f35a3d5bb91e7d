"""A node that swallows its cancellation and returns a value has timed out all the same."""

from __future__ import annotations

import asyncio

from resolute import RetryPolicy, RunStatus, node
from tests.conformance.case import Case, builder


@node("stubborn", timeout="100ms", retry=RetryPolicy(max_attempts=1))
async def stubborn() -> str:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        pass
    return "too late"


CASE = Case(
    builder("timeout-swallowed").then(stubborn).build(),
    status=RunStatus.FAILED,
    error="NodeTimeout",
    history="1.0 stubborn failed 1 [NodeTimeout]",
)
