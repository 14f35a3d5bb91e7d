"""A node that its limit holds back comes back later: no attempt is used up."""

from __future__ import annotations

from resolute import RateLimit, node
from tests.conformance.case import Case, builder

LIMIT = RateLimit(1, "150ms", burst=1)


@node("one", rate_limit=LIMIT)
async def one() -> int:
    return 1


@node("pair", rate_limit=RateLimit(5, "100ms", burst=1))
async def pair() -> int:
    return 2


CASE = Case(
    builder("rate-limit")
    .then_parallel("first", one, pair)
    .then_parallel("second", one.as_("again"), pair.as_("pair-again"))
    .then(one.as_("last"))
    .build(),
    output=1,
    history="""
        1.0 first/one completed 1
        1.1 first/pair completed 1
        2.0 second/one completed 1
        2.1 second/pair completed 1
        3.0 one completed 1
    """,
)
