"""A function without a parameter is called without one, whatever the step before gave."""

from __future__ import annotations

from resolute import node
from tests.conformance.case import Case, builder


@node("make")
async def make() -> int:
    return 1


@node("ping")
def ping() -> str:
    return "pong"


CASE = Case(
    builder("no-input").then(make).then(ping).build(),
    output="pong",
    history="""
        1.0 make completed 1
        2.0 ping completed 1
    """,
)
