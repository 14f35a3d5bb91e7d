"""A branch whose predicate is true takes its arm; what comes before it is the arm's input."""

from __future__ import annotations

from resolute import FlowState, node
from tests.conformance.case import Case, builder


@node("look")
async def look(x: int) -> int:
    return x


@node("large")
async def large(x: int) -> str:
    return f"large {x}"


@node("small")
async def small(x: int) -> str:
    return f"small {x}"


def is_large(state: FlowState) -> bool:
    return state[look] > 10


CASE = Case(
    builder("branch-taken", input=int)
    .then(look)
    .when(is_large)
    .then(large)
    .otherwise(small)
    .build(),
    input=20,
    output="large 20",
    history="""
        1.0 look completed 1
        2.0 when.1 completed 1
        3.0 large completed 1
    """,
)
