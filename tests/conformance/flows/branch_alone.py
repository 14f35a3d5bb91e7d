"""Where no step was on the path of a run, its result is what a next step would get: the input."""

from __future__ import annotations

from resolute import FlowState, node
from tests.conformance.case import Case, builder


@node("extra")
async def extra(x: int) -> int:
    return x + 100


def is_large(state: FlowState) -> bool:
    return state.input(int) > 10


CASE = Case(
    builder("branch-alone", input=int).when(is_large).then(extra).end_when().build(),
    input=2,
    output=2,
    history="1.0 when.1 completed 1",
)
