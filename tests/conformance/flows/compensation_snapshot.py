"""A compensation's input is computed when its node completes: it sees that moment, not the end."""

from __future__ import annotations

from resolute import FlowState, RetryPolicy, RunStatus, node
from tests.conformance.case import Case, builder


@node("reserve")
async def reserve() -> int:
    return 42


@node("later")
async def later() -> int:
    return 1


@node("release", retry=RetryPolicy(max_attempts=1))
async def release(seen: list[str]) -> None:
    if seen != ["reserve"]:
        raise AssertionError(f"the snapshot has {seen}")


def keys(state: FlowState) -> list[str]:
    return state.keys()


@node("broken", retry=RetryPolicy(max_attempts=1))
async def broken() -> None:
    raise ValueError("broken")


CASE = Case(
    builder("compensation-snapshot")
    .then(reserve.on_error(release.with_input(keys)))
    .then(later)
    .then(broken)
    .build(),
    status=RunStatus.FAILED,
    error="ValueError",
    history="""
        1.0 reserve completed 1
        2.0 later completed 1
        3.0 broken failed 1 [ValueError]
        4.0 reserve/release completed 1 undoes reserve
    """,
)
