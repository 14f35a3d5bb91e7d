"""A loop's state is an output under its name; its history leaves out the turns before."""

from __future__ import annotations

import msgspec

from resolute import FlowState, node
from tests.conformance.case import Case, builder


class Progress(msgspec.Struct):
    total: int = 0
    left: int = 3


@node("step")
async def step(progress: Progress) -> int:
    return progress.left


@node("report")
async def report(progress: Progress) -> int:
    return progress.total


def add(state: FlowState, progress: Progress) -> Progress:
    return Progress(progress.total + state[step] * state.turn("turns"), progress.left - 1)


CASE = Case(
    builder("loop")
    .then_loop(
        "turns",
        body=step,
        state=Progress,
        initial=Progress(),
        while_=lambda progress: progress.left > 0,
        after=add,
    )
    .then(report)
    .build(),
    output=3 * 1 + 2 * 2 + 1 * 3,
    history="""
        1.0 turns.begin completed 1
        11.0 turns.while completed 1
        12.0 report completed 1
    """,
)
