"""After a best-effort node that failed the default input is None."""

from __future__ import annotations

from resolute import RetryPolicy, node
from tests.conformance.case import Case, builder


@node("optional", retry=RetryPolicy(max_attempts=1))
async def optional() -> int | None:
    raise ValueError("not today")


@node("after")
async def after(found: int | None) -> str:
    return f"found {found}"


CASE = Case(
    builder("best-effort-default-input").then(optional.best_effort()).then(after).build(),
    output="found None",
    history="""
        1.0 optional failed 1 [ValueError]
        2.0 after completed 1
    """,
)
