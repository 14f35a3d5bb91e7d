"""A run that overruns its deadline fails: what runs is cancelled, what completed compensated."""

from __future__ import annotations

import asyncio

from resolute import RunStatus, node
from tests.conformance.case import Case, builder


@node("reserve")
async def reserve() -> str:
    return "seat"


@node("release")
async def release(_: str) -> None: ...


@node("slow")
async def slow() -> None:
    await asyncio.sleep(60)


CASE = Case(
    builder("deadline").with_deadline("400ms").then(reserve.on_error(release)).then(slow).build(),
    status=RunStatus.FAILED,
    error="DeadlineExceeded",
    history="""
        1.0 reserve completed 1
        2.0 slow failed 1 [Cancelled]
        3.0 reserve/release completed 1 undoes reserve
    """,
)
