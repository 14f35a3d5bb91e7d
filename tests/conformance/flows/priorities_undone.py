"""A compensation has its own priority, else that of the node that it undoes."""

from __future__ import annotations

from resolute import RunStatus, TerminalError, node
from tests.conformance.case import Case, builder


@node("undo")
async def undo(_: int) -> None:
    pass


@node("book", priority="high")
async def book() -> int:
    return 1


@node("pay")
async def pay(_: int) -> int:
    return 2


@node("fail")
async def fail(_: int) -> int:
    raise TerminalError("no")


CASE = Case(
    builder("priorities-undone")
    .then(book.on_error(undo))
    .then(pay.on_error(undo.with_priority("normal")))
    .then(fail)
    .build(),
    priority="low",
    status=RunStatus.FAILED,
    error="TerminalError",
    history="""
        1.0 book completed 1 (high)
        2.0 pay completed 1 (low)
        3.0 fail failed 1 [TerminalError] (low)
        4.0 pay/undo completed 1 undoes pay
        5.0 book/undo completed 1 undoes book (high)
    """,
)
