"""A child that fails fails the step: the others are cancelled, and what came before is undone."""

from __future__ import annotations

import asyncio

from resolute import FlowState, RetryPolicy, RunStatus, node
from tests.conformance.case import Case, builder


@node("release")
async def release(room: str) -> None:
    pass


@node("reserve", retry=RetryPolicy(max_attempts=1))
async def reserve() -> str:
    return "a room"


@node("work", timeout="2m", retry=RetryPolicy(max_attempts=1))
async def work(x: int) -> int:
    if x == 0:
        raise ValueError("no")
    await asyncio.sleep(60)
    return x


def numbers(_: FlowState) -> list[int]:
    return [1, 0, 2]


CHILD = builder("children-fail-work", input=int).then(work).build()

CASE = Case(
    builder("children-fail")
    .then(reserve.on_error(release))
    .then_children("works", flow=CHILD, inputs=numbers)
    .build(),
    status=RunStatus.FAILED,
    error="ChildFailed",
    history="""
        1.0 reserve completed 1
        2.0 works.inputs completed 1
        3.0 works failed 1 [ChildFailed]
        3.1 works failed 1 [ChildFailed]
        3.2 works failed 1 [ChildFailed]
        4.0 reserve/release completed 1 undoes reserve
    """,
)
