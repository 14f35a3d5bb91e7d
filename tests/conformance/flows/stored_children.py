"""What a run gives those that it starts, and what they return, may be in the storage."""

from __future__ import annotations

from typing import Any

from resolute import FlowState, node
from tests.conformance.case import Case, builder

SIZES = [10, 300]


@node("repeat")
async def repeat(text: str) -> str:
    return text


@node("upper")
def upper(text: str) -> str:
    return text.upper()


@node("count")
async def count(text: str) -> int:
    return len(text)


one = builder("one", input=str).with_max_payload(100).then(repeat).build()
both = builder("both", input=str).with_max_payload(100).then_parallel("sides", upper, count).build()
each = (
    builder("each", input=str)
    .with_max_payload(100)
    .then_each("parts", repeat, items=lambda s: [s.input(str), "short"])
    .build()
)
family = (
    builder("family", input=str)
    .with_max_payload(100)
    .then_children("inner", flow=both, inputs=lambda s: [s.input(str)])
    .build()
)


def texts(_: FlowState) -> list[str]:
    return ["x" * size for size in SIZES]


def results(state: FlowState) -> list[list[Any]]:
    return [state.get(key, list[Any]) for key in ("ones", "boths", "eaches", "families")]


@node("look")
async def look(found: list[list[Any]]) -> list[list[Any]]:
    return found


CASE = Case(
    builder("stored-children")
    .with_max_payload(100)
    .then_children("ones", flow=one, inputs=texts)
    .then_children("boths", flow=both, inputs=texts)
    .then_children("eaches", flow=each, inputs=texts)
    .then_children("families", flow=family, inputs=texts)
    .then(look.with_input(results))
    .build(),
    output=[
        ["x" * size for size in SIZES],
        [{"upper": "X" * size, "count": size} for size in SIZES],
        [["x" * size, "short"] for size in SIZES],
        [[{"upper": "X" * size, "count": size}] for size in SIZES],
    ],
    has_storage=True,
    history="""
        1.0 ones.inputs completed 1
        2.0 ones completed 1
        2.1 ones completed 1
        3.0 boths.inputs completed 1
        4.0 boths completed 1
        4.1 boths completed 1
        5.0 eaches.inputs completed 1
        6.0 eaches completed 1
        6.1 eaches completed 1
        7.0 families.inputs completed 1
        8.0 families completed 1
        8.1 families completed 1
        9.0 look completed 1
    """,
)
