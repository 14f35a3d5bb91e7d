"""A failed attempt is made again; the history keeps the count and the last error."""

from __future__ import annotations

from resolute import RetryPolicy, current, node
from tests.conformance.case import Case, builder


@node("flaky", retry=RetryPolicy(initial_interval="10ms", max_attempts=3))
async def flaky() -> int:
    if current().attempt < 3:
        raise ValueError(f"attempt {current().attempt}")
    return current().attempt


CASE = Case(
    builder("retry-then-success").then(flaky).build(),
    output=3,
    history="1.0 flaky completed 3 [ValueError]",
)
