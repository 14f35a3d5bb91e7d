"""Flows that start runs of other flows."""

from __future__ import annotations

import os
from pathlib import Path

from resolute import FlowBuilder, FlowState, RetryPolicy, manual, node


@node("power")
async def power(number: int) -> int:
    return number * number


@node("sum")
async def total(numbers: list[int]) -> int:
    return sum(numbers)


def up_to(state: FlowState) -> range:
    return range(state.input(int))


square = FlowBuilder("square", input=int).triggered_by(manual()).then(power).build()

squares = (
    FlowBuilder("squares", input=int)
    .triggered_by(manual())
    .then_children("all", flow=square, inputs=up_to, max_concurrency=100)
    .then(total)
    .build()
)


@node("attempt", retry=RetryPolicy(max_attempts=1))
async def attempt(number: int) -> int:
    if number == 1 and not (Path(os.environ["RESOLUTE_TEST_FOLDER"]) / "mended").exists():
        raise ValueError("broken")
    return number


one_try = FlowBuilder("one-try", input=int).triggered_by(manual()).then(attempt).build()

shaky = (
    FlowBuilder("shaky")
    .triggered_by(manual())
    .then_children("tries", flow=one_try, inputs=lambda _: range(3))
    .build()
)
