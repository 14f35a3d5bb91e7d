"""A cursor is read as it was before the node, and saved when its step is done."""

from __future__ import annotations

from typing import Any

import msgspec

from resolute import FlowState, cursor, cursor_string, node
from tests.conformance.case import Case, builder


class Batch(msgspec.Struct):
    items: list[int]
    until: int


@node("fetch")
async def fetch(since: int) -> Batch:
    return Batch([since + 1, since + 2], since + 2)


@node("report")
async def report(seen: list[Any]) -> list[Any]:
    return seen


def since(state: FlowState) -> int:
    return state.cursor("number").int_or(10)


def first(state: FlowState) -> list[int]:
    return state.get("first", Batch).items


CASE = Case(
    builder("cursors")
    .then(fetch.with_input(since).as_("first").with_cursor("number", "until"))
    .then(report.with_input(first))
    .then(fetch.with_input(since).as_("second").with_cursor("number", "items.0"))
    .then(report.with_input([cursor("number"), cursor_string("number"), cursor("none")]).as_("end"))
    .build(),
    output=[13, "13", None],
    history="""
        1.0 fetch completed 1
        2.0 fetch.save/first.number.save completed 1
        3.0 report completed 1
        4.0 fetch completed 1
        5.0 fetch.save/second.number.save completed 1
        6.0 report completed 1
    """,
)
