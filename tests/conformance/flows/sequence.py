"""Steps run one after the other; each gets what the one before returned."""

from __future__ import annotations

from resolute import node
from tests.conformance.case import Case, builder


@node("double")
async def double(x: int) -> int:
    return 2 * x


@node("increment")
def increment(x: int) -> int:
    return x + 1


CASE = Case(
    builder("sequence", input=int).then(double).then(increment).build(),
    input=3,
    output=7,
    history="""
        1.0 double completed 1
        2.0 increment completed 1
    """,
)
