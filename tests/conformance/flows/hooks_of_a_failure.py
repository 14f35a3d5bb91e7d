"""A run that fails tells its hooks when all is compensated; the step that failed has no after."""

from __future__ import annotations

from resolute import FlowEvent, FlowHooks, RetryPolicy, RunStatus, StepEvent, node
from tests.conformance.case import Case, builder


def tell(event: FlowEvent | StepEvent) -> None:
    raise RuntimeError(f"what a hook raises changes nothing: {event}")


@node("book")
async def book() -> str:
    return "flight"


@node("unbook")
async def unbook(booking: str) -> None: ...


@node("pay", retry=RetryPolicy(max_attempts=1))
async def pay() -> None:
    raise ValueError("declined")


CASE = Case(
    builder("hooks-of-a-failure")
    .with_hooks(FlowHooks(after_flow=tell, before_step=tell, after_step=tell))
    .then(book.on_error(unbook))
    .then(pay)
    .build(),
    status=RunStatus.FAILED,
    error="ValueError",
    history="""
        1.0 before_flow completed 1
        2.0 book.before_step completed 1
        3.0 book completed 1
        4.0 book.after_step completed 1
        5.0 pay.before_step completed 1
        6.0 pay failed 1 [ValueError]
        7.0 book/unbook completed 1 undoes book
        8.0 before_flow/after_flow completed 1 undoes before_flow
    """,
)
