"""A compensation has retries of its own; one that fails is recorded and stops no other."""

from __future__ import annotations

from resolute import RetryPolicy, RunStatus, node
from tests.conformance.case import Case, builder


@node("first")
async def first() -> int:
    return 1


@node("second")
async def second() -> int:
    return 2


@node("undo-first")
async def undo_first(_: int) -> None: ...


@node("undo-second", retry=RetryPolicy(initial_interval="10ms", max_attempts=2))
async def undo_second(_: int) -> None:
    raise OSError("unreachable")


@node("broken", retry=RetryPolicy(max_attempts=1))
async def broken() -> None:
    raise ValueError("broken")


CASE = Case(
    builder("compensation-fails")
    .then(first.on_error(undo_first))
    .then(second.on_error(undo_second))
    .then(broken)
    .build(),
    status=RunStatus.FAILED,
    error="ValueError",
    history="""
        1.0 first completed 1
        2.0 second completed 1
        3.0 broken failed 1 [ValueError]
        4.0 second/undo-second failed 2 [OSError] undoes second
        5.0 first/undo-first completed 1 undoes first
    """,
)
