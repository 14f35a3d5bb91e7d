"""A node has its own priority, else that of the run; retries, pages and items keep it."""

from __future__ import annotations

from resolute import FlowState, Page, PageRequest, RetryPolicy, current, node, paginate
from tests.conformance.case import Case, builder

QUICK = RetryPolicy(initial_interval="1ms")


@node("plain")
async def plain() -> int:
    return 1


@node("urgent", priority="high", retry=QUICK)
async def urgent(number: int) -> int:
    if current().attempt == 1:
        raise ConnectionError("not yet")
    return number + 1


@node("item", priority="high", retry=QUICK)
async def item(number: int) -> int:
    if number == 2 and current().attempt == 1:
        raise ConnectionError("not yet")
    return number * 10


async def fetch_page(_: int, request: PageRequest) -> Page[int]:
    return Page([request.number], f"{request.number}" if request.number < 2 else None)


def three(state: FlowState) -> list[int]:
    return [1, 2, 3]


usual = plain.as_("usual").with_priority("normal")
pages = paginate("pages", fetch_page).with_priority("high")

CASE = Case(
    builder("priorities")
    .then(plain)
    .then(urgent)
    .then_each("items", item, items=three, max_concurrency=1)
    .then(pages.with_input(1))
    .then_parallel("both", usual, plain.as_("again"))
    .build(),
    priority="low",
    output={"usual": 1, "again": 1},
    history="""
        1.0 plain completed 1 (low)
        2.0 urgent completed 2 [ConnectionError] (high)
        3.0 items.items completed 1 (high)
        4.0 items/item completed 1 (high)
        4.1 items/item completed 2 [ConnectionError] (high)
        4.2 items/item completed 1 (high)
        5.0 pages completed 1 (high)
        6.0 both/plain completed 1
        6.1 both/plain completed 1 (low)
    """,
)
