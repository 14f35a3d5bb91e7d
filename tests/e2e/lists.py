"""Flows of lists and loops."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import msgspec

from resolute import FlowBuilder, FlowState, RetryPolicy, TerminalError, manual, node
from tests.e2e.app import folder, note

ONCE = RetryPolicy(max_attempts=1)


def flow(name: str) -> FlowBuilder[int, int]:
    return FlowBuilder(name, input=int).triggered_by(manual("test"))


@node("square")
async def square(number: int) -> int:
    return number * number


@node("add")
async def add(numbers: list[int]) -> int:
    return sum(numbers)


def up_to_input(state: FlowState) -> range:
    return range(state.input(int))


squares = flow("squares").then_each("each", square, items=up_to_input).then(add).build()
plain = (
    FlowBuilder("plain", input=list[int])
    .triggered_by(manual("test"))
    .then_each("each", square)
    .build()
)


@node("slowly")
async def slowly(number: int) -> int:
    note("in", number)
    await asyncio.sleep(0.005)
    note("out", number)
    return number


few = flow("few").then_each("each", slowly, items=up_to_input, max_concurrency=4).build()


@node("unpick")
async def unpick(number: int) -> None:
    note("unpick", number)


@node("pick", retry=ONCE)
async def pick(number: int) -> int:
    if number == 4:
        raise TerminalError("not 4")
    return number


picky = flow("picky").then_each("each", pick.on_error(unpick), items=up_to_input).build()


def strange(state: FlowState) -> Iterator[Any]:
    yield state.input(int)
    yield lambda: None


unlistable = flow("unlistable").then_each("each", square, items=strange).build()


@node("even", retry=ONCE)
async def even(number: int) -> int:
    if number % 2:
        raise TerminalError("odd")
    return number


forgiving = (
    flow("forgiving").then_each("each", even, items=up_to_input, on_item_error="continue").build()
)


class Counter(msgspec.Struct):
    """How many turns there are to be, and were."""

    most: int
    count: int = 0


@node("undo-turn")
async def undo_turn(number: int) -> None:
    note("undo", number)


@node("turn")
async def turn(counter: Counter) -> int:
    note("turn", counter.count)
    return counter.count


def one_more(state: FlowState, counter: Counter) -> Counter:
    return Counter(counter.most, state[turn] + 1)


def goes_on(counter: Counter) -> bool:
    return counter.count < counter.most


counting = (
    flow("counting")
    .then_loop(
        "loop",
        body=turn.on_error(undo_turn),
        state=Counter,
        initial=lambda state: Counter(state.input(int)),
        while_=goes_on,
        after=one_more,
    )
    .build()
)
endless = (
    flow("endless")
    .then_loop(
        "loop",
        body=lambda loop: loop.then(turn.on_error(undo_turn)).then(square),
        state=Counter,
        initial=Counter(99),
        while_=goes_on,
        after=one_more,
        max_iterations=7,
    )
    .build()
)


@node("mend", retry=ONCE)
async def mend(number: int) -> int:
    if number == 3 and not (folder() / "mended").exists():
        raise TerminalError("not yet")
    return number


mendable = flow("mendable").then_each("each", mend, items=up_to_input).build()
ALL = (squares, plain, few, picky, unlistable, counting, endless, mendable, forgiving)
