"""Bring an index up to date with what has changed: page by page, and stored batch by batch.

    resolute start sync-articles --input '{"until": 500}' --wait
    resolute start sync-articles --input '{"until": 520}' --wait

The first run fetches 500 articles, the second one the 20 that are new: the cursor says how far the
index has come. Each page is fetched once, whatever dies; the cursor moves when a batch is stored.
"""

from __future__ import annotations

import msgspec

from resolute import FlowBuilder, FlowState, Page, PageRequest, manual, node, paginate

CURSOR = "articles"
BATCH = 40


class Source(msgspec.Struct):
    """Where articles come from: here, made-up ones, numbered up to `until`."""

    until: int


class Wanted(msgspec.Struct):
    """The articles that changed after number `since`."""

    since: int
    until: int


class Article(msgspec.Struct):
    number: int
    title: str


def wanted(state: FlowState) -> Wanted:
    return Wanted(state.cursor(CURSOR).int_or(0), state.input(Source).until)


async def fetch(asked: Wanted, page: PageRequest) -> Page[Article]:
    """A page, as an API with opaque cursors gives it."""
    first = int(page.cursor) if page.cursor is not None else asked.since + 1
    after = min(first + page.size, asked.until + 1)
    articles = [Article(number, f"Article {number}") for number in range(first, after)]
    return Page(articles, str(after) if after <= asked.until else None)


@node("index-articles")
async def index_articles(articles: list[Article]) -> int:
    """Store a batch; here it only counts them. An index would take it as a whole or not at all."""
    return len(articles)


flow = (
    FlowBuilder("sync-articles", input=Source)
    .triggered_by(manual())
    .then(
        paginate("articles", fetch, page_size=100, rate_limit="50/1s")
        .with_input(wanted)
        .with_cursor(CURSOR, "-1.number")
        .with_window(BATCH)
    )
    .then(index_articles)
    .build()
)
