"""A cancel is no failure of a best-effort node: the run ends cancelled."""

from __future__ import annotations

import asyncio

from resolute import RunStatus, node
from tests.conformance.case import Case, builder


@node("slow")
async def slow() -> None:
    await asyncio.sleep(60)


@node("after")
async def after() -> None: ...


CASE = Case(
    builder("cancel-best-effort").then(slow.best_effort()).then(after).build(),
    cancel_while="slow",
    status=RunStatus.CANCELLED,
    error="Cancelled",
    history="1.0 slow failed 1 [Cancelled]",
)
