"""A compensation whose input function raised fails with that; the node it is for completed."""

from __future__ import annotations

from resolute import FlowState, RetryPolicy, RunStatus, node
from tests.conformance.case import Case, builder


@node("reserve")
async def reserve() -> int:
    return 42


@node("release")
async def release(x: int) -> None: ...


def broken_input(_: FlowState) -> int:
    raise KeyError("seat")


@node("broken", retry=RetryPolicy(max_attempts=1))
async def broken() -> None:
    raise ValueError("broken")


CASE = Case(
    builder("compensation-input-fails")
    .then(reserve.on_error(release.with_input(broken_input)))
    .then(broken)
    .build(),
    status=RunStatus.FAILED,
    error="ValueError",
    history="""
        1.0 reserve completed 1
        2.0 broken failed 1 [ValueError]
        3.0 reserve/release failed 1 [TerminalError] undoes reserve
    """,
)
