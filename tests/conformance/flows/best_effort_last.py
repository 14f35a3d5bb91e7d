"""A best-effort node that failed as the last step: the result is None."""

from __future__ import annotations

from resolute import RetryPolicy, node
from tests.conformance.case import Case, builder


@node("optional", retry=RetryPolicy(max_attempts=1))
async def optional() -> int:
    raise ValueError("not today")


CASE = Case(
    builder("best-effort-last").then(optional.best_effort()).build(),
    output=None,
    history="""
        1.0 optional failed 1 [ValueError]
    """,
)
