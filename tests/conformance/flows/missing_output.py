"""To read an output that is not there is final: another attempt would not find it either."""

from __future__ import annotations

from resolute import FlowState, RunStatus, node
from tests.conformance.case import Case, builder


@node("reader")
async def reader(x: int) -> int:
    return x


def missing(state: FlowState) -> int:
    return state.get("nowhere", int)


CASE = Case(
    builder("missing-output").then(reader.with_input(missing)).build(),
    status=RunStatus.FAILED,
    error="MissingOutput",
    history="1.0 reader failed 1 [MissingOutput]",
)
