"""A predicate that fails for good fails the run; nothing of its arms has run."""

from __future__ import annotations

from resolute import FlowState, RunStatus, node
from tests.conformance.case import Case, builder


@node("never")
async def never() -> None: ...


def broken(state: FlowState) -> bool:
    return state.get("nowhere", bool)


CASE = Case(
    builder("predicate-fails").when(broken).then(never).end_when().build(),
    status=RunStatus.FAILED,
    error="MissingOutput",
    history="1.0 when.1 failed 1 [MissingOutput]",
)
