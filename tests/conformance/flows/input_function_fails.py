"""An input function that raises is a failed attempt of its node, and is tried again."""

from __future__ import annotations

from resolute import FlowState, RetryPolicy, RunStatus, node
from tests.conformance.case import Case, builder


@node("never", retry=RetryPolicy(initial_interval="10ms", max_attempts=3))
async def never(x: int) -> int:
    return x


def broken(_: FlowState) -> int:
    raise RuntimeError("no input today")


CASE = Case(
    builder("input-function-fails").then(never.with_input(broken)).build(),
    status=RunStatus.FAILED,
    error="RuntimeError",
    history="1.0 never failed 3 [RuntimeError]",
)
