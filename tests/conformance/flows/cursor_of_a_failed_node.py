"""A best-effort node that failed moves no cursor, and the step after gets what it would have."""

from __future__ import annotations

from resolute import RetryPolicy, node
from tests.conformance.case import Case, builder


@node("start")
async def start() -> int:
    return 7


@node("optional", retry=RetryPolicy(max_attempts=1))
async def optional(number: int) -> int:
    raise ValueError("down")


@node("sure")
async def sure(number: int) -> int:
    return number + 1


@node("last")
async def last(found: dict[str, int]) -> dict[str, int]:
    return found


CASE = Case(
    builder("cursor-of-a-failed-node")
    .then(start)
    .then_parallel("both", optional.best_effort().with_cursor("a"), sure.with_cursor("b"))
    .then(last)
    .build(),
    output={"sure": 8},
    history="""
        1.0 start completed 1
        2.0 both/optional failed 1 [ValueError]
        2.1 both/sure completed 1
        3.0 both.save/optional.a.save completed 1
        3.1 both.save/sure.b.save completed 1
        4.0 last completed 1
    """,
)
