"""A compensation costs too, and what a node that failed for good has spent stays spent."""

from __future__ import annotations

from resolute import RetryPolicy, RunStatus, current, node
from tests.conformance.case import Case, builder


@node("undo")
async def undo() -> None:
    current().add_cost(2, "eur")


@node("book")
async def book() -> None:
    current().add_cost(1, "eur")


@node("pay", retry=RetryPolicy(max_attempts=1))
def pay() -> None:
    current().add_cost("0.000001", "eur")
    raise LookupError("no money")


CASE = Case(
    builder("costs-undone").then(book.on_error(undo)).then(pay).build(),
    status=RunStatus.FAILED,
    error="LookupError",
    costs={"eur": "3.000001"},
    history="""
        1.0 book completed 1
        2.0 pay failed 1 [LookupError]
        3.0 book/undo completed 1 undoes book
    """,
)
