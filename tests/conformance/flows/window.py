"""The rest of the flow runs for a batch at a time; the cursor moves when it is done for one."""

from __future__ import annotations

import msgspec

from resolute import FlowState, node
from tests.conformance.case import Case, builder


class Issue(msgspec.Struct):
    number: int


class Report(msgspec.Struct):
    numbers: list[int]
    cursor: int


@node("fetch")
async def fetch() -> list[Issue]:
    return [Issue(number) for number in range(1, 6)]


@node("double")
async def double(issue: Issue) -> int:
    return issue.number * 2


@node("look")
async def look(numbers: list[int]) -> list[int]:
    return numbers


def cursor_and_batch(state: FlowState) -> list[int]:
    """What the run has seen of its own cursor so far, and this batch."""
    batch = [issue.number for issue in state[fetch]]
    return [state.cursor("issues").int_or(0), *batch, *state.get("doubled", list[int])]


@node("report")
async def report(found: list[int]) -> Report:
    return Report(found[1:], found[0])


CASE = Case(
    builder("window")
    .then(fetch.with_cursor("issues", "-1.number").with_window(2))
    .then_each("doubled", double)
    .then(look.with_input(cursor_and_batch))
    .then(report)
    .build(),
    output=Report([5, 10], 4),
    history="""
        1.0 fetch completed 1
        2.0 fetch.cut.items completed 1
        3.0 fetch.cut completed 1
        3.1 fetch.cut completed 1
        3.2 fetch.cut completed 1
        4.0 fetch.window.begin completed 1
        32.0 fetch.window.while completed 1
        33.0 fetch.last.result completed 1
    """,
)
