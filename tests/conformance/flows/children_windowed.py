"""With max_concurrency a child that ends lets the next begin, until all have."""

from __future__ import annotations

from resolute import FlowState, node
from tests.conformance.case import Case, builder


@node("square")
async def square(x: int) -> int:
    return x * x


def numbers(_: FlowState) -> list[int]:
    return list(range(7))


CHILD = builder("children-windowed-square", input=int).then(square).build()

CASE = Case(
    builder("children-windowed")
    .then_children("squares", flow=CHILD, inputs=numbers, max_concurrency=2)
    .build(),
    output=[0, 1, 4, 9, 16, 25, 36],
    history="\n".join(
        ["1.0 squares.inputs completed 1", *(f"2.{n} squares completed 1" for n in range(7))]
    ),
)
