"""The nodes of a parallel step all get the same input; its output is a dict by output key."""

from __future__ import annotations

from resolute import node
from tests.conformance.case import Case, builder


@node("double")
async def double(x: int) -> int:
    return 2 * x


@node("square", output="squared")
def square(x: int) -> int:
    return x * x


@node("total")
async def total(parts: dict[str, int]) -> int:
    return parts["double"] + parts["squared"]


CASE = Case(
    builder("parallel", input=int).then_parallel("both", double, square).then(total).build(),
    input=3,
    output=15,
    history="""
        1.0 both/double completed 1
        1.1 both/square completed 1
        2.0 total completed 1
    """,
)
