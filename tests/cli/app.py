"""The flows that the tests of the command line run: a saga, a branch, a retry, and one that waits.

`resolute-worker --app tests/cli/app.py` serves them; the tests themselves import nothing of it.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from resolute import FlowBuilder, FlowState, RateLimit, RetryPolicy, current, manual, node, schedule


class Order(msgspec.Struct):
    item: str = "book"
    price: int = 10
    stock: int = 5


class Total(msgspec.Struct):
    amount: int


class Gate(msgspec.Struct):
    """A file: the node ends once it exists."""

    path: str


class OutOfStock(Exception):
    """Raised by the node that fails."""


@node("price", output="total")
async def price(order: Order) -> Total:
    return Total(order.price)


@node("tax", timeout="30s", rate_limit="1000/1s")
async def tax(total: Total) -> Total:
    current().add_cost("0.1", "eur")
    current().add_cost(1_250, "tokens")
    return Total(total.amount // 4)


@node("shipping", retry=RetryPolicy(max_attempts=5, initial_interval="10ms"))
def shipping(total: Total) -> Total:
    return Total(5)


@node("free-gift", retry=RetryPolicy(max_attempts=1))
async def free_gift(total: Total) -> str:
    raise LookupError("no gifts left")


@node("invoice")
async def invoice(amount: int) -> int:
    return amount


@node("discount")
async def discount(amount: int) -> int:
    return amount - 100


@node("audit", queue="default")
async def audit(amount: int) -> int:
    return amount


def summed(state: FlowState) -> int:
    return state[price].amount + state[tax].amount + state[shipping].amount


flow_input = FlowBuilder("checkout", input=Order).triggered_by(manual("shop"))
checkout = (
    flow_input.then(price)
    .then_parallel("costs", tax, shipping, free_gift.best_effort())
    .when(lambda state: summed(state) > 1000)
    .then(discount.with_input(summed))
    .when(lambda state: summed(state) > 10_000)
    .then(audit.with_input(summed))
    .end_when()
    .otherwise(invoice.with_input(summed))
    .build()
)


@node("unreserve")
async def unreserve(total: Total) -> None: ...


@node("reserve")
async def reserve(order: Order) -> Total:
    return Total(order.stock)


@node("ship", retry=RetryPolicy(max_attempts=1))
async def ship(total: Total) -> None:
    raise OutOfStock(f"only {total.amount} left")


saga = (
    FlowBuilder("saga", input=Order)
    .triggered_by(schedule("0 4 * * *", timezone="Europe/Oslo"))
    .then(reserve.on_error(unreserve))
    .then(ship)
    .build()
)


@node("flaky", retry=RetryPolicy(max_attempts=3, initial_interval="10ms"))
def flaky(gate: Gate) -> str:
    if not Path(gate.path).exists():
        Path(gate.path).touch()
        raise ConnectionError("the first call never gets through")
    return "through"


retrying = FlowBuilder("retrying", input=Gate).triggered_by(manual()).then(flaky).build()


@node("stubborn", retry=RetryPolicy(max_attempts=2, initial_interval="1h", maximum_interval="1h"))
async def stubborn(order: Order) -> None:
    raise ConnectionError("not today")


patient = FlowBuilder("patient", input=Order).triggered_by(manual()).then(stubborn).build()


@node("limited", rate_limit=RateLimit(1, "1h", burst=1))
async def limited(order: Order) -> None: ...


throttled = FlowBuilder("throttled", input=Order).triggered_by(manual()).then(limited).build()


@node("hold")
async def hold(gate: Gate) -> str:
    while not Path(gate.path).exists():  # noqa: ASYNC240 - a file is the whole interface
        await asyncio.sleep(0.01)
    return "released"


held = FlowBuilder("held", input=Gate).triggered_by(manual()).then(hold).build()


published = (
    FlowBuilder("published", input=Order).triggered_by(manual()).then_gate("approval").build()
)


@node("elsewhere", queue="gpu")
async def elsewhere(order: Order) -> None: ...


remote = FlowBuilder("remote", input=Order).triggered_by(manual()).then(elsewhere).build()


@node("write-pages")
async def write_pages(pages: int) -> str:
    return "a page of text\n" * 100_000 * pages


report = FlowBuilder("report", input=int).triggered_by(manual()).then(write_pages).build()
