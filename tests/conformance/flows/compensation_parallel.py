"""In a parallel step only what completed is compensated, in reverse order of completion."""

from __future__ import annotations

import asyncio

from resolute import RetryPolicy, RunStatus, node
from tests.conformance.case import Case, builder


@node("early")
async def early() -> str:
    return "early"


@node("late")
async def late() -> str:
    await asyncio.sleep(0.2)
    return "late"


@node("broken", retry=RetryPolicy(max_attempts=1))
async def broken() -> str:
    await asyncio.sleep(0.1)
    raise ValueError("broken")


@node("undo-early")
async def undo_early(_: str) -> None: ...


@node("undo-late")
async def undo_late(_: str) -> None: ...


@node("undo-broken")
async def undo_broken(_: str) -> None: ...


CASE = Case(
    builder("compensation-parallel")
    .then_parallel(
        "all", early.on_error(undo_early), late.on_error(undo_late), broken.on_error(undo_broken)
    )
    .build(),
    status=RunStatus.FAILED,
    error="ValueError",
    history="""
        1.0 all/early completed 1
        1.1 all/late completed 1
        1.2 all/broken failed 1 [ValueError]
        2.1 all/undo-late completed 1 undoes late
        3.0 all/undo-early completed 1 undoes early
    """,
)
