"""Cancelling a run cancels its children, which undo what they did."""

from __future__ import annotations

import asyncio

from resolute import FlowState, RunStatus, node
from tests.conformance.case import Case, builder


@node("work", timeout="2m")
async def work(x: int) -> int:
    await asyncio.sleep(60)
    return x


def numbers(_: FlowState) -> list[int]:
    return [1, 2]


CHILD = builder("children-cancel-work", input=int).then(work).build()

CASE = Case(
    builder("children-cancel").then_children("works", flow=CHILD, inputs=numbers).build(),
    status=RunStatus.CANCELLED,
    error="Cancelled",
    cancel_while="works",
    history="""
        1.0 works.inputs completed 1
        2.0 works failed 1 [ChildFailed]
        2.1 works failed 1 [ChildFailed]
    """,
)
