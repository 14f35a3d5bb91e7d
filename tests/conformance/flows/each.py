"""A node runs for each item of a list; the output is the list of outputs, in order."""

from __future__ import annotations

from resolute import FlowState, node
from tests.conformance.case import Case, builder


@node("square")
async def square(x: int) -> int:
    return x * x


@node("total")
async def total(squares: list[int]) -> int:
    return sum(squares)


def numbers(state: FlowState) -> list[int]:
    return list(range(state.input(int)))


CASE = Case(
    builder("each", input=int).then_each("squares", square, items=numbers).then(total).build(),
    input=3,
    output=5,
    history="""
        1.0 squares.items completed 1
        2.0 squares/square completed 1
        2.1 squares/square completed 1
        2.2 squares/square completed 1
        3.0 total completed 1
    """,
)
