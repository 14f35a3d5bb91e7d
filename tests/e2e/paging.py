"""Flows that fetch page by page."""

from __future__ import annotations

import os
import signal

from resolute import FlowBuilder, Page, PageRequest, TerminalError, manual, node, paginate
from tests.e2e.app import folder, note

LETTERS = "abcdefghij"


def page_of(request: PageRequest) -> Page[str]:
    """Two letters at a time."""
    at = request.number * request.size
    letters = list(LETTERS[at : at + request.size])
    return Page(letters, str(request.number + 1) if at + request.size < len(LETTERS) else None)


def is_first(name: str) -> bool:
    """Whether nobody was here before, in any process."""
    try:
        (folder() / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


async def deadly(request: PageRequest) -> Page[str]:
    note("page", request.number)
    if request.number in (2, 4) and is_first(f"dies-{request.number}"):
        os.kill(os.getpid(), signal.SIGKILL)
    return page_of(request)


async def refused(request: PageRequest) -> Page[str]:
    note("page", request.number)
    if request.number == 3 and not (folder() / "allowed").exists():
        raise TerminalError("not yet")
    return page_of(request)


async def noted(request: PageRequest) -> Page[str]:
    note("page", request.number)
    return page_of(request)


@node("join")
async def join(letters: list[str]) -> str:
    return "".join(letters)


def flow(name: str) -> FlowBuilder[None, None]:
    return FlowBuilder(name, input=type(None)).triggered_by(manual("test"))


killing = flow("killing").then(paginate("letters", deadly, page_size=2)).then(join).build()
mendable = flow("mendable").then(paginate("letters", refused, page_size=2)).then(join).build()
limited = (
    flow("limited")
    .then(paginate("letters", noted, page_size=2, rate_limit="20/1s"))
    .then(join)
    .build()
)
