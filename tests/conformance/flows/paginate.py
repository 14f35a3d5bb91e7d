"""Every page has its own attempts, and is fetched once; the output has the items of all."""

from __future__ import annotations

import msgspec

from resolute import Page, PageRequest, RetryPolicy, current, node, paginate
from tests.conformance.case import Case, builder


class Query(msgspec.Struct):
    project: str


class Issue(msgspec.Struct):
    key: str


@node("query")
async def query() -> Query:
    return Query("A")


async def fetch(asked: Query, page: PageRequest) -> Page[Issue]:
    if current().attempt == 1 and page.number > 0:
        raise ConnectionError("once for each page but the first")
    first = page.number * page.size
    items = [Issue(f"{asked.project}-{first + n}") for n in range(page.size)]
    return Page(items, f"after {items[-1].key}" if page.number < 3 else None)


@node("keys")
async def keys(issues: list[Issue]) -> str:
    return " ".join(issue.key for issue in issues)


TWICE = RetryPolicy(max_attempts=2, initial_interval="1ms")

CASE = Case(
    builder("paginate")
    .then(query)
    .then(paginate("issues", fetch, page_size=2, retry=TWICE))
    .then(keys)
    .build(),
    output="A-0 A-1 A-2 A-3 A-4 A-5 A-6 A-7",
    history="""
        1.0 query completed 1
        2.0 issues completed 2 [ConnectionError]
        3.0 keys completed 1
    """,
)
