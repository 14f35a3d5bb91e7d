"""Fetch page after page until there are no more, then import each contact, five at a time.

    resolute start import-contacts --input '{"contacts": 23, "page_size": 10}' --wait

The loop's state is what was fetched so far; a worker that dies half-way goes on at the page that it
had not fetched. Contacts whose number ends in 7 have no address: they fail, and the others do not.
"""

from __future__ import annotations

import msgspec

from resolute import FlowBuilder, FlowState, RetryPolicy, TerminalError, manual, node

AT_ONCE = 5


class Source(msgspec.Struct):
    """Where contacts come from: here, made-up ones."""

    contacts: int
    page_size: int = 10


class Pages(msgspec.Struct):
    """The loop's state: the numbers of the contacts so far, and the page to fetch next."""

    numbers: list[int] = []
    next_page: int | None = 0


class Page(msgspec.Struct):
    """A page of contacts; `following` is None on the last."""

    numbers: list[int]
    following: int | None


class Imported(msgspec.Struct):
    """How the import went."""

    turns: int
    contacts: int
    failed: int


@node("fetch-page")
async def fetch_page(ask: tuple[Source, int]) -> Page:
    source, number = ask
    first = number * source.page_size
    last = min(source.contacts, first + source.page_size)
    return Page(list(range(first, last)), number + 1 if last < source.contacts else None)


def page_to_fetch(state: FlowState) -> tuple[Source, int]:
    pages = state.get("pages", Pages)
    return state.input(Source), pages.next_page or 0


def add_page(state: FlowState, pages: Pages) -> Pages:
    page = state[fetch_page]
    return Pages([*pages.numbers, *page.numbers], page.following)


@node("import-contact", retry=RetryPolicy(max_attempts=1))
async def import_contact(number: int) -> str:
    if number % 10 == 7:
        raise TerminalError(f"contact {number} has no address")
    return f"contact-{number}"


@node("report")
async def report(imported: Imported) -> Imported:
    return imported


def summary(state: FlowState) -> Imported:
    results = list(state.iter("import", str))
    return Imported(state.turn("pages") - 1, len(results), results.count(None))


flow = (
    FlowBuilder("import-contacts", input=Source)
    .triggered_by(manual("contacts"))
    .then_loop(
        "pages",
        body=fetch_page.with_input(page_to_fetch),
        state=Pages,
        initial=Pages(),
        while_=lambda pages: pages.next_page is not None,
        after=add_page,
    )
    .then_each(
        "import",
        import_contact,
        items=lambda state: state.get("pages", Pages).numbers,
        max_concurrency=AT_ONCE,
        on_item_error="continue",
    )
    .then(report.with_input(summary))
    .build()
)
