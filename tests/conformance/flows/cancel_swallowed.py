"""A node that returns a value in spite of its cancellation has completed, and is compensated."""

from __future__ import annotations

import asyncio

from resolute import RunStatus, node
from tests.conformance.case import Case, builder


@node("slow")
async def slow() -> str:
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        pass
    return "saved what there was"


@node("undo-slow")
async def undo_slow(_: str) -> None: ...


CASE = Case(
    builder("cancel-swallowed").then(slow.on_error(undo_slow)).build(),
    cancel_while="slow",
    status=RunStatus.CANCELLED,
    error="Cancelled",
    history="""
        1.0 slow completed 1
        2.0 slow/undo-slow completed 1 undoes slow
    """,
)
