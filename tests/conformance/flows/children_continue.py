"""With "continue" a child that fails is None in the list; the state knows its id and error."""

from __future__ import annotations

from resolute import FlowState, RetryPolicy, node
from tests.conformance.case import Case, builder


@node("halve", retry=RetryPolicy(max_attempts=1))
async def halve(x: int) -> int:
    if x % 2:
        raise ValueError(f"{x} is odd")
    return x // 2


@node("report")
async def report(lines: list[str]) -> list[str]:
    return lines


def numbers(_: FlowState) -> list[int]:
    return [4, 3]


def lines(state: FlowState) -> list[str]:
    halves = state.get("halves", list[int | None])
    children = state.children("halves")
    ends = [child.id.partition("/")[2] for child in children]
    errors = [child.error.type if child.error else "fine" for child in children]
    return [f"{end}: {half} {error}" for end, half, error in zip(ends, halves, errors, strict=True)]


CHILD = builder("children-continue-halve", input=int).then(halve).build()

CASE = Case(
    builder("children-continue")
    .then_children("halves", flow=CHILD, inputs=numbers, on_child_error="continue")
    .then(report.with_input(lines))
    .build(),
    output=["halves.0: 2 fine", "halves.1: None ChildFailed"],
    history="""
        1.0 halves.inputs completed 1
        2.0 halves completed 1
        2.1 halves failed 1 [ChildFailed]
        3.0 report completed 1
    """,
)
