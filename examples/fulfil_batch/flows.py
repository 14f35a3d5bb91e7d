"""Ship a batch of orders: each is a run of the flow `ship-order`, three at a time.

    resolute start ship-batch --input '{"orders": [{"number": 1}, {"number": 13}]}' --wait
    resolute show <id>            # the batch, and where each order is
    resolute show <id>/orders.1   # the order that failed, with what was undone

An order whose number is divisible by 13 has no courier: its run fails and gives its stock back. The
batch goes on without it and says which it was.
"""

from __future__ import annotations

import msgspec

from resolute import FlowBuilder, FlowState, TerminalError, manual, node


class Order(msgspec.Struct):
    number: int


class Batch(msgspec.Struct):
    orders: list[Order]


class Parcel(msgspec.Struct):
    """What was shipped, under which code."""

    order: int
    code: str


class Report(msgspec.Struct):
    """How a batch went; `failed` is by the id of the order's run."""

    codes: list[str]
    failed: dict[str, str]


@node("release-stock")
async def release_stock(reserved: int) -> None:
    print(f"order {reserved}: its stock is free again")


@node("reserve-stock")
async def reserve_stock(order: Order) -> int:
    return order.number


@node("ship")
async def ship(number: int) -> Parcel:
    if number % 13 == 0:
        raise TerminalError(f"order {number}: no courier goes there")
    return Parcel(number, f"PARCEL-{number:04}")


order_flow = (
    FlowBuilder("ship-order", input=Order)
    .triggered_by(manual("orders"))
    .then(reserve_stock.on_error(release_stock))
    .then(ship)
    .build()
)


@node("report")
async def report(found: Report) -> Report:
    return found


def orders(state: FlowState) -> list[Order]:
    return state.input(Batch).orders


def summary(state: FlowState) -> Report:
    parcels = state.get("orders", list[Parcel | None])
    errors = {c.id: c.error.message for c in state.children("orders") if c.error is not None}
    return Report([parcel.code for parcel in parcels if parcel], errors)


flow = (
    FlowBuilder("ship-batch", input=Batch)
    .triggered_by(manual("batches"))
    .then_children(
        "orders", flow=order_flow, inputs=orders, max_concurrency=3, on_child_error="continue"
    )
    .then(report.with_input(summary))
    .build()
)
