"""A list without items is one batch without items, and moves no cursor."""

from __future__ import annotations

from resolute import RetryPolicy, cursor, node
from tests.conformance.case import Case, builder


@node("fetch", retry=RetryPolicy(max_attempts=1))
async def fetch() -> list[int]:
    raise ConnectionError("it is best effort")


@node("count")
async def count(numbers: list[int] | None) -> int:
    return len(numbers or ())


@node("end")
async def end(found: list[int | None]) -> list[int | None]:
    return found


CASE = Case(
    builder("window-empty")
    .then(fetch.best_effort().with_cursor("numbers", "-1").with_window(10))
    .then(count)
    .then(end.with_input([cursor("numbers")]))
    .build(),
    output=[None],
    history="""
        1.0 fetch failed 1 [ConnectionError]
        2.0 fetch.cut.items completed 1
        3.0 fetch.cut completed 1
        4.0 fetch.window.begin completed 1
        12.0 fetch.window.while completed 1
        13.0 fetch.last.result completed 1
    """,
)
