"""More pages than max_pages fail the node at once: nobody would notice what is missing."""

from __future__ import annotations

from resolute import Page, PageRequest, RunStatus, paginate
from tests.conformance.case import Case, builder


async def fetch(page: PageRequest) -> Page[int]:
    return Page([page.number], str(page.number + 1))


CASE = Case(
    builder("paginate-too-many").then(paginate("numbers", fetch, max_pages=3)).build(),
    status=RunStatus.FAILED,
    error="TooManyPages",
    history="""
        1.0 numbers failed 1 [TooManyPages]
    """,
)
