"""An input that does not fit the parameter's type is final."""

from __future__ import annotations

from resolute import FlowState, RunStatus, node
from tests.conformance.case import Case, builder


@node("count")
async def count(x: int) -> int:
    return x


def a_text(_: FlowState) -> str:
    return "three"


CASE = Case(
    builder("wrong-input-type").then(count.with_input(a_text)).build(),
    status=RunStatus.FAILED,
    error="ValidationError",
    history="1.0 count failed 1 [ValidationError]",
)
