"""Without inputs no run is started: the output is an empty list."""

from __future__ import annotations

from resolute import FlowState, node
from tests.conformance.case import Case, builder


@node("square")
async def square(x: int) -> int:
    return x * x


def nothing(_: FlowState) -> list[int]:
    return []


CHILD = builder("children-empty-square", input=int).then(square).build()

CASE = Case(
    builder("children-empty").then_children("squares", flow=CHILD, inputs=nothing).build(),
    output=[],
    history="1.0 squares.inputs completed 1",
)
