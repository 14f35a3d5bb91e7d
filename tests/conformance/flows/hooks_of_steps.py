"""Hooks of steps and of the flow are nodes beside its own: what a step gets and returns stays."""

from __future__ import annotations

from resolute import FlowEvent, FlowHooks, FlowState, StepEvent, node
from tests.conformance.case import Case, builder


def tell(event: FlowEvent | StepEvent) -> None:
    raise SystemExit(f"what a hook raises ends nothing: {event}")


@node("double")
async def double(number: int) -> int:
    return 2 * number


@node("listed")
async def listed(number: int) -> list[int]:
    return [number, number + 1]


@node("increase")
async def increase(number: int) -> int:
    return number + 1


def is_large(state: FlowState) -> bool:
    return state[double] > 10


CASE = Case(
    builder("hooks-of-steps", input=int)
    .with_hooks(FlowHooks(before_flow=tell, after_flow=tell, before_step=tell, after_step=tell))
    .then(double)
    .when(is_large)
    .then(listed)
    .else_()
    .then(listed.as_("others"))
    .end_when()
    .then_each("raised", increase)
    .build(),
    input=3,
    output=[7, 8],
    history="""
        1.0 before_flow completed 1
        2.0 double.before_step completed 1
        3.0 double completed 1
        4.0 double.after_step completed 1
        5.0 when.1 completed 1
        6.0 others.before_step completed 1
        7.0 listed completed 1
        8.0 others.after_step completed 1
        9.0 raised.before_step completed 1
        10.0 raised.items completed 1
        11.0 raised/increase completed 1
        11.1 raised/increase completed 1
        12.0 raised.after_step completed 1
        13.0 after_flow completed 1
    """,
)
