"""Without an input the flow gets the defaults of its type, and so does its first step."""

from __future__ import annotations

import msgspec

from resolute import node
from tests.conformance.case import Case, builder


class Order(msgspec.Struct):
    item: str = "tea"
    count: int = 2


@node("order")
async def order(order: Order) -> str:
    return f"{order.count} {order.item}"


CASE = Case(
    builder("default-input", input=Order).then(order).build(),
    output="2 tea",
    history="1.0 order completed 1",
)
