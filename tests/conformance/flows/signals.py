"""What was sent is there for who reads it, typed and in order; a gate takes its own."""

from __future__ import annotations

from resolute import FlowState, GateResult, node
from tests.conformance.case import Case, builder


@node("count")
async def count(numbers: list[int]) -> list[int]:
    return numbers


def sent(state: FlowState) -> list[int]:
    return state.signals("number", int)


CASE = Case(
    builder("signals")
    .with_signal("number", int)
    .then_gate("go")
    .then(count.with_input(sent))
    .build(),
    signals=(("number", 3), ("number", 1), ("go", GateResult(True))),
    output=[3, 1],
    history="""
        1.0 go completed 1
        2.0 count completed 1
    """,
)
