"""A best-effort node that failed is left out of the dict of its parallel step."""

from __future__ import annotations

from resolute import RetryPolicy, node
from tests.conformance.case import Case, builder


@node("sure")
async def sure() -> int:
    return 1


@node("optional", retry=RetryPolicy(max_attempts=1))
async def optional() -> int:
    raise ValueError("not today")


CASE = Case(
    builder("best-effort-parallel").then_parallel("both", sure, optional.best_effort()).build(),
    output={"sure": 1},
    history="""
        1.0 both/sure completed 1
        1.1 both/optional failed 1 [ValueError]
    """,
)
