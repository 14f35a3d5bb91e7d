"""With max_concurrency a node that ends lets the next follow; one that fails leaves None."""

from __future__ import annotations

from resolute import FlowState, RetryPolicy, node
from tests.conformance.case import Case, builder


@node("halve", retry=RetryPolicy(max_attempts=1))
async def halve(x: int) -> int | None:
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x // 2


def numbers(_: FlowState) -> list[int]:
    return [2, 3, 4, 6, 8]


CASE = Case(
    builder("each-windowed")
    .then_each("halves", halve, items=numbers, max_concurrency=2, on_item_error="continue")
    .build(),
    output=[1, None, 2, 3, 4],
    history="""
        1.0 halves.items completed 1
        2.0 halves/halve completed 1
        2.1 halves/halve failed 1 [ValueError]
        2.2 halves/halve completed 1
        2.3 halves/halve completed 1
        2.4 halves/halve completed 1
    """,
)
