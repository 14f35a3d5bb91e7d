"""An arm can be a parallel step, and the step after the branch gets its dict."""

from __future__ import annotations

from resolute import FlowState, node
from tests.conformance.case import Case, builder


@node("left")
async def left(x: int) -> int:
    return x - 1


@node("right")
async def right(x: int) -> int:
    return x + 1


@node("plain")
async def plain(x: int) -> dict[str, int]:
    return {"plain": x}


@node("names")
async def names(parts: dict[str, int]) -> list[str]:
    return sorted(parts)


def is_odd(state: FlowState) -> bool:
    return state.input(int) % 2 == 1


CASE = Case(
    builder("branch-parallel-arm", input=int)
    .when(is_odd)
    .then(plain)
    .otherwise_parallel("sides", left, right)
    .then(names)
    .build(),
    input=4,
    output=["left", "right"],
    history="""
        1.0 when.1 completed 1
        2.0 sides/left completed 1
        2.1 sides/right completed 1
        3.0 names completed 1
    """,
)
