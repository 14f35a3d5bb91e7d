"""A sleep has no output: the step after it gets what the one before it returned."""

from __future__ import annotations

from datetime import timedelta

from resolute import FlowState, node
from tests.conformance.case import Case, builder


@node("double")
async def double(x: int) -> int:
    return 2 * x


def a_moment(_: FlowState) -> timedelta:
    return timedelta(milliseconds=30)


CASE = Case(
    builder("sleep", input=int)
    .then(double)
    .then_sleep("30ms")
    .then_sleep_until(a_moment)
    .then(double.as_("again"))
    .build(),
    input=3,
    output=12,
    history="""
        1.0 double completed 1
        2.0 sleep.1 completed 1
        3.0 sleep.2.until completed 1
        4.0 sleep.2 completed 1
        5.0 double completed 1
    """,
)
