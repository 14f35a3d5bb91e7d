"""RetryAfter says when the next attempt is, instead of the backoff; it uses up an attempt."""

from __future__ import annotations

from resolute import RetryAfter, RetryPolicy, current, node
from tests.conformance.case import Case, builder


@node("busy", retry=RetryPolicy(initial_interval="1h", maximum_interval="1h", max_attempts=2))
async def busy() -> str:
    if current().attempt == 1:
        raise RetryAfter(0.05)
    return "through"


CASE = Case(
    builder("retry-after").then(busy).build(),
    output="through",
    history="1.0 busy completed 2 [RetryAfter]",
)
