"""A run of another flow for each input: their results, in order, are the step's output."""

from __future__ import annotations

from resolute import FlowState, node
from tests.conformance.case import Case, builder


@node("square")
async def square(x: int) -> int:
    return x * x


@node("total")
async def total(squares: list[int]) -> int:
    return sum(squares)


def numbers(_: FlowState) -> list[int]:
    return [1, 2, 3]


CHILD = builder("children-square", input=int).then(square).build()

CASE = Case(
    builder("children").then_children("squares", flow=CHILD, inputs=numbers).then(total).build(),
    output=14,
    history="""
        1.0 squares.inputs completed 1
        2.0 squares completed 1
        2.1 squares completed 1
        2.2 squares completed 1
        3.0 total completed 1
    """,
)
