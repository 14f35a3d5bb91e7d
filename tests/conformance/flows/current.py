"""A node can ask for its place and its attempt."""

from __future__ import annotations

from resolute import RetryPolicy, current, node
from tests.conformance.case import Case, builder


@node("first")
async def first() -> None: ...


@node("ask", retry=RetryPolicy(initial_interval="10ms", max_attempts=2))
def ask() -> str:
    here = current()
    if here.attempt == 1:
        raise ValueError("again")
    return f"{here.flow} {here.node} {here.seq}.{here.index} {here.attempt}"


CASE = Case(
    builder("current").then(first).then(ask).build(),
    output="current ask 2.0 2",
    history="""
        1.0 first completed 1
        2.0 ask completed 2 [ValueError]
    """,
)
