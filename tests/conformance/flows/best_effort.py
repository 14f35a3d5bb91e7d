"""A best-effort node may fail; what comes after can ask why, and reads a default."""

from __future__ import annotations

from resolute import FlowState, RetryPolicy, node
from tests.conformance.case import Case, builder


@node("optional", retry=RetryPolicy(max_attempts=1))
async def optional() -> int:
    raise ValueError("not today")


@node("report")
async def report(text: str) -> str:
    return text


def why(state: FlowState) -> str:
    error = state.error(optional)
    return f"{state.get_or(optional, 7)} {error.type if error else None} {state.has(optional)}"


CASE = Case(
    builder("best-effort").then(optional.best_effort()).then(report.with_input(why)).build(),
    output="7 ValueError False",
    history="""
        1.0 optional failed 1 [ValueError]
        2.0 report completed 1
    """,
)
