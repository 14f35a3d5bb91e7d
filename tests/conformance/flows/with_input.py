"""`with_input` takes a value or a function of the state, which sees all that was there before."""

from __future__ import annotations

from resolute import FlowState, node
from tests.conformance.case import Case, builder


@node("fetch", output="fetched")
async def fetch(x: int) -> int:
    return x


@node("constant")
async def constant(text: str) -> str:
    return text


@node("join")
async def join(text: str) -> str:
    return text


def joined(state: FlowState) -> str:
    return f"{state.keys()} {state.get('fetched', int)} {state[constant]} {state.input(int)}"


CASE = Case(
    builder("with-input", input=int)
    .then(fetch)
    .then(constant.with_input("a"))
    .then(join.with_input(joined))
    .build(),
    input=5,
    output="['constant', 'fetched'] 5 a 5",
    history="""
        1.0 fetch completed 1
        2.0 constant completed 1
        3.0 join completed 1
    """,
)
