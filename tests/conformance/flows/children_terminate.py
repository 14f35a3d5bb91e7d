"""Terminating a run terminates its children, which it still hears of; nothing is undone."""

from __future__ import annotations

import asyncio

from resolute import FlowState, RunStatus, node
from tests.conformance.case import Case, builder


@node("book")
async def book(x: int) -> int:
    return x


@node("unbook")
async def unbook(_: int) -> None: ...


@node("work", timeout="2m")
async def work(x: int) -> int:
    await asyncio.sleep(60)
    return x


def numbers(_: FlowState) -> list[int]:
    return [1, 2, 3]


CHILD = builder("children-terminate-work", input=int).then(book.on_error(unbook)).then(work).build()

CASE = Case(
    builder("children-terminate")
    .then_children("works", flow=CHILD, inputs=numbers, max_concurrency=2)
    .build(),
    status=RunStatus.TERMINATED,
    error="Terminated",
    cancel_while="works",
    is_terminated=True,
    history="""
        1.0 works.inputs completed 1
        2.0 works failed 1 [ChildFailed]
        2.1 works failed 1 [ChildFailed]
        2.2 works ready 0
    """,
)
