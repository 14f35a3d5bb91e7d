"""A parallel step at the end: the result is a dict by output key."""

from __future__ import annotations

from resolute import node
from tests.conformance.case import Case, builder


@node("left")
async def left(x: int) -> int:
    return x - 1


@node("right")
async def right(x: int) -> int:
    return x + 1


CASE = Case(
    builder("parallel-result", input=int).then_parallel("sides", left, right.as_("r")).build(),
    input=1,
    output={"left": 0, "r": 2},
    history="""
        1.0 sides/left completed 1
        1.1 sides/right completed 1
    """,
)
