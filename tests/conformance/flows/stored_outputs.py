"""Outputs above the limit go to the storage; inputs, states and the result have them whole."""

from __future__ import annotations

from resolute import FlowState, node
from tests.conformance.case import Case, builder

TEXT = "x" * 500


@node("large")
async def large(text: str) -> str:
    return text


@node("left")
async def left(text: str) -> str:
    return text.upper()


@node("right")
def right(text: str) -> int:
    return len(text)


@node("both")
async def both(found: dict[str, str | int]) -> list[str | int]:
    return [found["left"], found["right"]]


def is_long(state: FlowState) -> bool:
    return len(state[large]) > 100


@node("last")
def last(text: str) -> str:
    return text


CASE = Case(
    builder("stored-outputs", input=str)
    .with_max_payload(100)
    .then(large)
    .then_parallel("halves", left, right)
    .then(both)
    .when(is_long)
    .then(last.with_input(lambda s: s[large] + str(s.get("left", str)) + s.input(str)))
    .end_when()
    .build(),
    input=TEXT,
    output=TEXT + TEXT.upper() + TEXT,
    has_storage=True,
    history="""
        1.0 large completed 1
        2.0 halves/left completed 1
        2.1 halves/right completed 1
        3.0 both completed 1
        4.0 when.1 completed 1
        5.0 last completed 1
    """,
)
