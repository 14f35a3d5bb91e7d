"""A run that is cancelled stops the nodes that run, and compensates what completed."""

from __future__ import annotations

import asyncio

from resolute import RunStatus, node
from tests.conformance.case import Case, builder


@node("book")
async def book() -> int:
    return 1


@node("unbook")
async def unbook(_: int) -> None: ...


@node("slow")
async def slow() -> None:
    await asyncio.sleep(60)


@node("after")
async def after() -> None: ...


CASE = Case(
    builder("cancel").then(book.on_error(unbook)).then(slow).then(after).build(),
    cancel_while="slow",
    status=RunStatus.CANCELLED,
    error="Cancelled",
    history="""
        1.0 book completed 1
        2.0 slow failed 1 [Cancelled]
        3.0 book/unbook completed 1 undoes book
    """,
)
