"""The node's team checks what it is given, and the flow what it gets: both are final."""

from __future__ import annotations

from resolute import Node, RunStatus, node
from tests.conformance.case import Case, builder


@node("svc.length")
async def length(text: str) -> int:
    return len(text)


CASE = Case(
    builder("named-wrong-types")
    .then(Node.named("svc.length").with_input(7).as_("given").best_effort())
    .then(Node.named("svc.length", returns=str).with_input("seven"))
    .build(),
    served=(length,),
    status=RunStatus.FAILED,
    error="ValidationError",
    history="""
        1.0 given.input completed 1
        2.0 svc.length failed 1 [ValidationError]
        3.0 svc.length.input completed 1
        4.0 svc.length failed 1 [ValidationError]
    """,
)
