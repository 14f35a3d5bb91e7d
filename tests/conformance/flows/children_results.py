"""What a child returned is as its last step gave it: a value, a map, a list, or its input."""

from __future__ import annotations

from typing import Any

from resolute import FlowState, node
from tests.conformance.case import Case, builder


@node("plus")
async def plus(x: int) -> int:
    return x + 1


@node("minus")
async def minus(x: int) -> int:
    return x - 1


@node("double")
async def double(x: int) -> int:
    return 2 * x


def is_small(state: FlowState) -> bool:
    return state.input(int) < 3


def is_even(state: FlowState) -> bool:
    return state.input(int) % 2 == 0


def up_to(state: FlowState) -> list[int]:
    return list(range(state.input(int)))


CHILD = (
    builder("children-results-child", input=int)
    .when(is_even)
    .when(is_small)
    .then(plus)
    .else_()
    .then_parallel("both", plus, minus)
    .end_when()
    .else_()
    .when(is_small)
    .then_each("doubles", double, items=up_to)
    .end_when()
    .end_when()
    .build()
)


@node("gather")
async def gather(results: list[Any]) -> list[Any]:
    return results


def inputs(_: FlowState) -> list[int]:
    return [0, 1, 4, 5]


CASE = Case(
    builder("children-results")
    .then_children("runs", flow=CHILD, inputs=inputs)
    .then(gather)
    .build(),
    output=[1, [0], {"plus": 5, "minus": 3}, 5],
    history="""
        1.0 runs.inputs completed 1
        2.0 runs completed 1
        2.1 runs completed 1
        2.2 runs completed 1
        2.3 runs completed 1
        3.0 gather completed 1
    """,
)
