"""A child's result that is put together from outputs has a size, too: that of its flow's values."""

from __future__ import annotations

from typing import Any

from resolute import FlowState, node
from tests.conformance.case import Case, builder


@node("part")
async def part(size: int) -> bytes:
    return bytes(size)


@node("same")
async def same(size: int) -> bytes:
    return bytes(size)


def is_small(state: FlowState) -> bool:
    return state.input(int) < 600


def three(state: FlowState) -> list[int]:
    return [state.input(int)] * 3


def sizes(_: FlowState) -> list[int]:
    return [300, 500, 900, 990]


CHILD = (
    builder("children-too-large-child", input=int)
    .with_max_payload(1_000)
    .when(is_small)
    .then_each("parts", part, items=three)
    .else_()
    .then_parallel("both", part.as_("one"), same)
    .end_when()
    .build()
)


@node("lengths")
async def lengths(results: list[Any]) -> list[int | None]:
    return [None if one is None else len(one) for one in results]


def errors(state: FlowState) -> list[str]:
    found = [child.error for child in state.children("runs")]
    return [f"{error.type}: {error.message}" if error else "" for error in found]


@node("told")
async def told(errors: list[str]) -> list[str]:
    return errors


CASE = Case(
    builder("children-too-large")
    .then_children("runs", flow=CHILD, inputs=sizes, on_child_error="continue")
    .then(lengths)
    .then(told.with_input(errors))
    .build(),
    output=[
        "",
        "PayloadTooLarge: payload of 1,510 bytes is over the limit of 1,000 bytes",
        "PayloadTooLarge: payload of 1,816 bytes is over the limit of 1,000 bytes",
        "PayloadTooLarge: payload of 1,996 bytes is over the limit of 1,000 bytes",
    ],
    history="""
        1.0 runs.inputs completed 1
        2.0 runs completed 1
        2.1 runs failed 1 [PayloadTooLarge]
        2.2 runs failed 1 [PayloadTooLarge]
        2.3 runs failed 1 [PayloadTooLarge]
        3.0 lengths completed 1
        4.0 told completed 1
    """,
)
