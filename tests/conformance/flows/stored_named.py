"""A node that is run by name is given, and returns, what is in the storage as any other."""

from __future__ import annotations

from resolute import FlowState, Node, RunStatus, TerminalError, node
from tests.conformance.case import Case, builder


@node("svc.double")
async def served(text: str) -> str:
    return text * 2


@node("write")
async def write() -> str:
    return "x" * 200


@node("undo")
def undo(text: str) -> int:
    return len(text)


@node("check")
async def check(text: str) -> None:
    raise TerminalError(f"{len(text)} characters")


double = Node.named("svc.double", returns=str)


def both(state: FlowState) -> str:
    return state[write] + state[double]


CASE = Case(
    builder("stored-named")
    .with_max_payload(100)
    .then(write)
    .then(double.with_input(lambda s: s[write] + "y").on_error(undo.with_input(both)))
    .then(check)
    .build(),
    status=RunStatus.FAILED,
    error="TerminalError",
    served=(served,),
    has_storage=True,
    history="""
        1.0 write completed 1
        2.0 svc.double.input completed 1
        3.0 svc.double completed 1
        4.0 check failed 1 [TerminalError]
        5.0 svc.double/undo completed 1 undoes svc.double
    """,
)
