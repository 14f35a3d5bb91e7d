"""A branch that is not taken and has no other arm leaves the result to the step before."""

from __future__ import annotations

from resolute import FlowState, node
from tests.conformance.case import Case, builder


@node("look")
async def look(x: int) -> int:
    return x


@node("extra")
async def extra(x: int) -> int:
    return x + 100


@node("last")
async def last(x: int) -> int:
    return -x


def is_large(state: FlowState) -> bool:
    return state[look] > 10


CASE = Case(
    builder("branch-without-else", input=int)
    .then(look)
    .when(is_large)
    .then(extra)
    .end_when()
    .then(last)
    .build(),
    input=2,
    output=-2,
    history="""
        1.0 look completed 1
        2.0 when.1 completed 1
        3.0 last completed 1
    """,
)
