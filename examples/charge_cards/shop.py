"""The shop's code: a flow that names the payments team's nodes, and has none of their code.

resolute-worker --queue shop --app examples.charge_cards.shop
resolute start buy-tickets --input '{"card": "4242", "seats": 2}' --wait
"""

from __future__ import annotations

import msgspec

from resolute import (
    FlowBuilder,
    FlowState,
    Node,
    RetryPolicy,
    TerminalError,
    input_data,
    manual,
    node,
    output,
)


class Order(msgspec.Struct):
    """How many seats, and the card that pays for them."""

    card: str
    seats: int = 1


class Receipt(msgspec.Struct):
    """What the shop needs to know of a charge."""

    id: str
    cents: int


class Tickets(msgspec.Struct):
    """What was bought."""

    seats: list[str]
    receipt: str


@node("price")
async def price(order: Order) -> int:
    """What the seats cost, in cents."""
    return order.seats * 2_500


@node("book", retry=RetryPolicy(max_attempts=1))
async def book(order: Order) -> list[str]:
    """Takes seats; there are only ten."""
    if order.seats > 10:
        raise TerminalError("sold out")
    return [f"seat-{number}" for number in range(order.seats)]


@node("hand-over")
async def hand_over(tickets: Tickets) -> Tickets:
    """The end of it."""
    return tickets


def order_of(state: FlowState) -> Order:
    """The flow's input."""
    return state.input(Order)


charge = (
    Node.named(
        "cards.charge",
        input={"card": input_data("card"), "cents": output("price")},
        returns=Receipt,
        queue="payments",
    )
    .with_timeout("30s")
    .on_error(Node.named("cards.refund", queue="payments"))
)

flow = (
    FlowBuilder("buy-tickets", input=Order)
    .triggered_by(manual("shop"))
    .then(price)
    .then(charge)
    .then(book.with_input(order_of))
    .then(hand_over.with_input(Tickets(output("book"), output("cards.charge.id"))))
    .build()
)
