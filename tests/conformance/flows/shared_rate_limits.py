"""A node under two limits starts when both grant."""

from __future__ import annotations

from resolute import SharedRateLimit, node
from tests.conformance.case import Case, builder

API = SharedRateLimit("api", 1, "150ms", burst=1)
TENANT = SharedRateLimit("tenant", 1, "150ms", burst=1, key=lambda tenant: tenant)


@node("call", rate_limit=(API, TENANT))
async def call(tenant: str) -> str:
    return tenant


CASE = Case(
    builder("shared-rate-limits")
    .then_parallel("both", call.with_input("a").as_("a"), call.with_input("b").as_("b"))
    .build(),
    output={"a": "a", "b": "b"},
    history="""
        1.0 both/call completed 1
        1.1 both/call completed 1
    """,
)
