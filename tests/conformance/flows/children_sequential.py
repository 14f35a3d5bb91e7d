"""Sequential children: one begins when the one before has ended; after a failure none does."""

from __future__ import annotations

from resolute import FlowState, RetryPolicy, RunStatus, node
from tests.conformance.case import Case, builder


@node("work", retry=RetryPolicy(max_attempts=1))
async def work(x: int) -> int:
    if x == 3:
        raise ValueError("no")
    return x


def numbers(_: FlowState) -> list[int]:
    return [1, 2, 3, 4, 5]


CHILD = builder("children-sequential-work", input=int).then(work).build()

CASE = Case(
    builder("children-sequential")
    .then_children("works", flow=CHILD, inputs=numbers, sequential=True)
    .build(),
    status=RunStatus.FAILED,
    error="ChildFailed",
    history="""
        1.0 works.inputs completed 1
        2.0 works completed 1
        2.1 works completed 1
        2.2 works failed 1 [ChildFailed]
        2.3 works skipped 0
        2.4 works skipped 0
    """,
)
