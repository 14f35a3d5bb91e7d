"""Branches nest; predicates are named in order of writing, and only those on the path run."""

from __future__ import annotations

from resolute import node
from tests.conformance.case import Case, builder


@node("low")
async def low(x: int) -> str:
    return f"low {x}"


@node("middle")
async def middle(x: int) -> str:
    return f"middle {x}"


@node("high")
async def high(x: int) -> str:
    return f"high {x}"


CASE = Case(
    builder("branch-nested", input=int)
    .when(lambda state: state.input(int) > 10)
    .when(lambda state: state.input(int) > 100)
    .then(high)
    .otherwise(middle)
    .else_()
    .then(low)
    .end_when()
    .build(),
    input=50,
    output="middle 50",
    history="""
        1.0 when.1 completed 1
        2.0 when.2 completed 1
        3.0 middle completed 1
    """,
)
