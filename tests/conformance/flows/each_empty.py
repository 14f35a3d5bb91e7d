"""A list without items is no work: the output is an empty list."""

from __future__ import annotations

from resolute import FlowState, node
from tests.conformance.case import Case, builder


@node("never")
async def never(x: int) -> int:
    return x


@node("count")
async def count(found: list[int]) -> int:
    return len(found)


def nothing(_: FlowState) -> list[int]:
    return []


CASE = Case(
    builder("each-empty").then_each("none", never, items=nothing).then(count).build(),
    output=0,
    history="""
        1.0 none.items completed 1
        2.0 count completed 1
    """,
)
