"""A node that succeeds can pause its limits: who shares one starts when the pause is over."""

from __future__ import annotations

import asyncio

from resolute import SharedRateLimit, current, node
from tests.conformance.case import Case, builder

API = SharedRateLimit("paused-api", 1000, "1s")
PAUSE = 0.5  # s

paused_at: list[float] = []  # on the loop's clock, the last one of this process


@node("told", rate_limit=API)
async def told() -> None:
    current().pause_limits(PAUSE)
    current().pause_limits(PAUSE / 10)  # a shorter one does not end it
    paused_at.append(asyncio.get_running_loop().time())


@node("next", rate_limit=API)
async def following() -> bool:
    return asyncio.get_running_loop().time() - paused_at[-1] >= PAUSE * 0.9


CASE = Case(
    builder("pause-limits").then(told).then(following).build(),
    output=True,
    history="""
        1.0 told completed 1
        2.0 next completed 1
    """,
)
