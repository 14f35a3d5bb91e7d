"""What may fail, and does in a later turn of a loop, leaves nothing there from the turn before."""

from __future__ import annotations

from typing import Any

from resolute import FlowState, RetryPolicy, node
from tests.conformance.case import Case, builder

ONCE = RetryPolicy(max_attempts=1)


@node("first", retry=ONCE)
async def first(turn: int) -> int:
    if turn == 2:
        raise ValueError("not in the second turn")
    return turn


@node("after-it")
async def after_it(found: int | None) -> int | None:
    return found


@node("each-one", retry=ONCE)
async def each_one(item: list[int]) -> int:
    turn, number = item
    if turn == 2 and number == 1:
        raise ValueError("not that one")
    return turn * 10 + number


@node("of-a-child", retry=ONCE)
async def of_a_child(item: list[int]) -> int:
    return await each_one.fn(item)


CHILD = builder("loop-of-failures-child", input=list[int]).then(of_a_child).build()


def pairs(state: FlowState) -> list[list[int]]:
    return [[state.turn("turns"), number] for number in range(3)]


def is_early(seen: list[list[Any]]) -> bool:
    return len(seen) < 3


def add(state: FlowState, seen: list[list[Any]]) -> list[list[Any]]:
    error = state.error(first)
    found: list[Any] = [
        state.get_or(first, None),
        error.type if error else None,
        state[after_it],
        state.get("items", list[int | None]),
        state.get("children", list[int | None]),
    ]
    return [*seen, found]


CASE = Case(
    builder("loop-of-failures")
    .then_loop(
        "turns",
        body=lambda body: (
            body.then(first.best_effort().with_input(lambda state: state.turn("turns")))
            .then(after_it)
            .then_each("items", each_one, items=pairs, on_item_error="continue")
            .then_children("children", flow=CHILD, inputs=pairs, on_child_error="continue")
        ),
        state=list[list[Any]],
        initial=[],
        while_=is_early,
        after=add,
    )
    .build(),
    output=[
        [1, None, 1, [10, 11, 12], [10, 11, 12]],
        [None, "ValueError", None, [20, None, 22], [20, None, 22]],
        [3, None, 3, [30, 31, 32], [30, 31, 32]],
    ],
    history="""
        1.0 turns.begin completed 1
        26.0 turns.while completed 1
    """,
)
