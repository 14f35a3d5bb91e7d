"""Each turn of a loop takes the signals that came before it; none is seen in two turns."""

from __future__ import annotations

from resolute import FlowState, GateResult, node
from tests.conformance.case import Case, builder


@node("note")
async def note(numbers: list[int]) -> list[int]:
    return numbers


def sent(state: FlowState) -> list[int]:
    return state.signals("number", int)


def is_early(seen: list[list[int]]) -> bool:
    return len(seen) < 2


def add(state: FlowState, seen: list[list[int]]) -> list[list[int]]:
    return [*seen, state[note]]


CASE = Case(
    builder("signals-in-a-loop")
    .with_signal("number", int)
    .then_gate("go")
    .then_loop(
        "turns",
        body=note.with_input(sent),
        state=list[list[int]],
        initial=[],
        while_=is_early,
        after=add,
    )
    .build(),
    signals=(("number", 1), ("number", 2), ("go", GateResult(True))),
    output=[[1, 2], []],
    history="""
        1.0 go completed 1
        2.0 turns.begin completed 1
        9.0 turns.while completed 1
    """,
)
