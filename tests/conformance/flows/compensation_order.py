"""What completed and has a compensation is compensated, the last first, one at a time."""

from __future__ import annotations

from resolute import RetryPolicy, RunStatus, node
from tests.conformance.case import Case, builder


@node("book-flight")
async def book_flight() -> str:
    return "flight"


@node("book-hotel")
async def book_hotel() -> str:
    return "hotel"


@node("cancel-flight")
async def cancel_flight(booking: str) -> str:
    return booking


@node("cancel-hotel")
async def cancel_hotel(booking: str) -> str:
    return booking


@node("pay", retry=RetryPolicy(max_attempts=1))
async def pay() -> None:
    raise ValueError("declined")


CASE = Case(
    builder("compensation-order")
    .then(book_flight.on_error(cancel_flight))
    .then(book_hotel.on_error(cancel_hotel))
    .then(pay)
    .build(),
    status=RunStatus.FAILED,
    error="ValueError",
    history="""
        1.0 book-flight completed 1
        2.0 book-hotel completed 1
        3.0 pay failed 1 [ValueError]
        4.0 book-hotel/cancel-hotel completed 1 undoes book-hotel
        5.0 book-flight/cancel-flight completed 1 undoes book-flight
    """,
)
