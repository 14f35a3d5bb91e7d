"""A child starts children of its own, in a loop: each turn has others."""

from __future__ import annotations

from resolute import FlowState, node
from tests.conformance.case import Case, builder


@node("square")
async def square(x: int) -> int:
    return x * x


def below(turn: int) -> bool:
    return turn < 2


def count(_: FlowState, turn: int) -> int:
    return turn + 1


def numbers(state: FlowState) -> list[int]:
    return [state.turn("turns"), 10]


LEAF = builder("children-nested-leaf", input=int).then(square).build()


@node("seen")
async def seen(ids: list[str]) -> list[str]:
    return ids


def ids(state: FlowState) -> list[str]:
    return [child.id.partition("/")[2] for child in state.children("squares")]


MIDDLE = (
    builder("children-nested-middle", input=int)
    .then_loop(
        "turns",
        body=lambda body: body.then_children("squares", flow=LEAF, inputs=numbers),
        state=int,
        initial=0,
        while_=below,
        after=count,
    )
    .then(seen.with_input(ids))
    .build()
)


def one(_: FlowState) -> list[int]:
    return [0]


CASE = Case(
    builder("children-nested").then_children("middles", flow=MIDDLE, inputs=one).build(),
    output=[["middles.0/squares@8.0", "middles.0/squares@8.1"]],
    history="""
        1.0 middles.inputs completed 1
        2.0 middles completed 1
    """,
)
