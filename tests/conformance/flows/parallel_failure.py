"""When a node of a parallel step fails, its siblings that run finish; then the run fails."""

from __future__ import annotations

import asyncio

from resolute import RetryPolicy, RunStatus, node
from tests.conformance.case import Case, builder


@node("broken", retry=RetryPolicy(max_attempts=1))
async def broken() -> None:
    raise ValueError("broken")


@node("steady")
async def steady() -> str:
    await asyncio.sleep(0.1)
    return "done"


@node("after")
async def after() -> None: ...


CASE = Case(
    builder("parallel-failure").then_parallel("both", broken, steady).then(after).build(),
    status=RunStatus.FAILED,
    error="ValueError",
    history="""
        1.0 both/broken failed 1 [ValueError]
        1.1 both/steady completed 1
    """,
)
