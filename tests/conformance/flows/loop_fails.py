"""What fails in a later turn of a loop is not an error of what completed under the same key."""

from __future__ import annotations

from resolute import FlowState, RetryPolicy, RunStatus, TerminalError, current, node
from tests.conformance.case import Case, builder


@node("flaky", retry=RetryPolicy(initial_interval="1ms", max_attempts=2))
async def flaky(turn: int) -> int:
    if turn == 1 and current().attempt == 1:
        raise ValueError("not at once")
    return turn


def turn_of(state: FlowState) -> int:
    return state.turn("turns")


def goes_on(_: int) -> bool:
    return True


def add(_: FlowState, seen: int) -> int:
    if seen == 1:
        raise TerminalError("not twice")
    return seen + 1


CASE = Case(
    builder("loop-fails")
    .then_loop(
        "turns",
        body=flaky.with_input(turn_of),
        state=int,
        initial=0,
        while_=goes_on,
        after=add,
    )
    .build(),
    status=RunStatus.FAILED,
    error="TerminalError",
    history="""
        1.0 turns.begin completed 1
        5.0 turns.while completed 1
        6.0 flaky completed 1
        7.0 turns.after failed 1 [TerminalError]
    """,
)
