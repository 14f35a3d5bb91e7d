"""A page that names itself as the next one, and what is no page, fail their attempts."""

from __future__ import annotations

from typing import Any, cast

from resolute import FlowState, Page, PageRequest, RetryPolicy, node, paginate
from tests.conformance.case import Case, builder

ONCE = RetryPolicy(max_attempts=1)


async def again(page: PageRequest) -> Page[int]:
    return Page([page.number], "here")


async def no_page(page: PageRequest) -> Page[int]:
    return cast("Page[int]", [page.number])


@node("errors")
async def errors(found: list[str]) -> list[str]:
    return found


def said(state: FlowState) -> list[str]:
    found: list[Any] = [state.error(name) for name in ("again", "no-page")]
    return [f"{error.type}: {error.message}" for error in found]


CASE = Case(
    builder("paginate-misled")
    .then_parallel(
        "both",
        paginate("again", again, retry=ONCE).best_effort(),
        paginate("no-page", no_page, retry=ONCE).best_effort(),
    )
    .then(errors.with_input(said))
    .build(),
    output=[
        "ValueError: page 1: `next` leads to the same page again",
        "TypeError: page 0: expected a Page, got list",
    ],
    history="""
        1.0 both/again failed 1 [ValueError]
        1.1 both/no-page failed 1 [TypeError]
        2.0 errors completed 1
    """,
)
