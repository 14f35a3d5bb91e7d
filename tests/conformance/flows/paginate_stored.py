"""Pages above the limit go to the storage; the first cursor is the flow's, if it has one."""

from __future__ import annotations

from resolute import Page, PageRequest, node, paginate
from tests.conformance.case import Case, builder


@node("begin")
async def begin() -> str:
    return "b"


def fetch(page: PageRequest) -> Page[str]:
    letter = page.cursor or "none"
    after = chr(ord(letter) + 1) if letter < "e" else None
    return Page([letter * 60, letter * (50 if letter == "c" else 70)], after)


@node("look")
def look(items: list[str]) -> list[str]:
    return [f"{item[0]}{len(item)}" for item in items]


CASE = Case(
    builder("paginate-stored")
    .with_max_payload(120)
    .then(begin.with_cursor("letters"))
    .then(paginate("letters", fetch, cursor_source="letters"))
    .then(look)
    .build(),
    output=["b60", "b70", "c60", "c50", "d60", "d70", "e60", "e70"],
    has_storage=True,
    history="""
        1.0 begin completed 1
        2.0 begin.save/begin.letters.save completed 1
        3.0 letters completed 1
        4.0 look completed 1
    """,
)
