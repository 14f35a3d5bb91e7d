"""After max_attempts attempts the node has failed, and the run with it."""

from __future__ import annotations

from resolute import RetryPolicy, RunStatus, node
from tests.conformance.case import Case, builder


@node("broken", retry=RetryPolicy(initial_interval="10ms", max_attempts=3))
def broken() -> None:
    raise ValueError("broken")


@node("after")
async def after() -> None: ...


CASE = Case(
    builder("retry-exhausted").then(broken).then(after).build(),
    status=RunStatus.FAILED,
    error="ValueError",
    history="1.0 broken failed 3 [ValueError]",
)
