"""A step that is wider than a page of 500 is handed out page by page, and ends once."""

from __future__ import annotations

from typing import Any

from resolute import node
from resolute.model.nodes import AsyncNode, Node
from tests.conformance.case import Case, builder

WIDTH = 620


def numbered(number: int) -> Node[Any, int]:
    async def give() -> int:
        return number

    return AsyncNode(f"n{number}", give)


@node("total")
async def total(parts: dict[str, int]) -> int:
    return sum(parts.values())


_LINES = "\n".join(f"1.{i} wide/n{i} completed 1" for i in range(WIDTH))

CASE = Case(
    builder("wide-step").then_parallel("wide", *map(numbered, range(WIDTH))).then(total).build(),
    output=sum(range(WIDTH)),
    history=f"{_LINES}\n2.0 total completed 1",
)
