"""A batch that fails compensates what the batches before it did, too: they are one run."""

from __future__ import annotations

from resolute import Page, PageRequest, RunStatus, TerminalError, node, paginate
from tests.conformance.case import Case, builder


async def fetch(page: PageRequest) -> Page[int]:
    first = 2 * page.number
    return Page([first, first + 1], "next" if page.number == 0 else None)


@node("undo-store")
async def undo_store(stored: int) -> None:
    pass


@node("store")
async def store(numbers: list[int]) -> int:
    return sum(numbers)


@node("check")
async def check(total: int) -> int:
    if total > 4:
        raise TerminalError(f"{total} is too much")
    return total


CASE = Case(
    builder("window-undone")
    .then(paginate("numbers", fetch).with_window(2))
    .then(store.on_error(undo_store))
    .then(check)
    .build(),
    status=RunStatus.FAILED,
    error="TerminalError",
    history="""
        1.0 numbers completed 1
        2.0 numbers.cut.items completed 1
        3.0 numbers.cut completed 1
        3.1 numbers.cut completed 1
        4.0 numbers.window.begin completed 1
        11.0 numbers.window.while completed 1
        12.0 numbers.batch completed 1
        13.0 store completed 1
        14.0 check failed 1 [TerminalError]
        15.0 store/undo-store completed 1 undoes store
        16.0 store/undo-store completed 1 undoes store
    """,
)
