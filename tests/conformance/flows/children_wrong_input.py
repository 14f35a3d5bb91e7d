"""An input that is no input of the child fails the step before a run is started."""

from __future__ import annotations

from typing import Any

from resolute import FlowState, RunStatus, node
from tests.conformance.case import Case, builder


@node("square")
async def square(x: int) -> int:
    return x * x


def mixed(_: FlowState) -> list[Any]:
    return [1, "two"]


CHILD = builder("children-wrong-input-square", input=int).then(square).build()

CASE = Case(
    builder("children-wrong-input").then_children("squares", flow=CHILD, inputs=mixed).build(),
    status=RunStatus.FAILED,
    error="ValidationError",
    history="1.0 squares.inputs failed 1 [ValidationError]",
)
