"""Flows that are asked, and flows that a signal starts."""

from __future__ import annotations

import msgspec

from resolute import FlowBuilder, FlowState, manual, node, signal


class Order(msgspec.Struct):
    item: str


@node("price")
async def price(order: Order) -> int:
    return len(order.item)


def where(state: FlowState) -> dict[str, object]:
    return {
        "item": state.input(Order).item,
        "known": state.keys(),
        "votes": state.signals("vote", int),
    }


def broken(state: FlowState) -> int:
    return state[price] // 0


asked = (
    FlowBuilder("asked", input=Order)
    .triggered_by(manual())
    .with_signal("vote", int)
    .with_query("where", where)
    .with_query("broken", broken)
    .then(price)
    .then_gate("go")
    .build()
)

first, second = (
    FlowBuilder(name, input=Order).triggered_by(signal("new-order")).then(price).build()
    for name in ("first", "second")
)
