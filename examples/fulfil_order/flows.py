"""Create order, invoice and shipment in parallel, each with a compensation.

Every node writes one line to a ledger (ORDER_LEDGER, default ``.resolute/ledger.txt``), so that
what was done and undone can be read there, outside Redis. An order of more than 100 kg cannot be
shipped:

    resolute start fulfil-order --input '{"id": "o-1", "weight": 250}' --wait
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import msgspec

from resolute import FlowBuilder, RetryPolicy, TerminalError, manual, node

HEAVIEST = 100.0  # kg
ONCE = RetryPolicy(max_attempts=1)


class Order(msgspec.Struct):
    """What a customer asked for. `invoice_seconds` is how long the billing system takes."""

    id: str
    weight: float = 1.0  # kg
    invoice_seconds: float = 0.0


class Created(msgspec.Struct):
    """A record that some system made for an order."""

    order: str
    record: str


def write(line: str) -> None:
    """Append a line to the ledger."""
    path = Path(os.environ.get("ORDER_LEDGER", ".resolute/ledger.txt"))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        os.write(descriptor, line.encode() + b"\n")
    finally:
        os.close(descriptor)


@node("cancel-order")
def cancel_order(created: Created) -> None:
    write(f"cancelled {created.record}")


@node("void-invoice")
def void_invoice(created: Created) -> None:
    write(f"voided {created.record}")


@node("cancel-shipment")
def cancel_shipment(created: Created) -> None:
    write(f"recalled {created.record}")


@node("create-order")
def create_order(order: Order) -> Created:
    write(f"created order-{order.id}")
    return Created(order.id, f"order-{order.id}")


@node("create-invoice")
async def create_invoice(order: Order) -> Created:
    await asyncio.sleep(order.invoice_seconds)
    write(f"created invoice-{order.id}")
    return Created(order.id, f"invoice-{order.id}")


@node("create-shipment", retry=ONCE)
async def create_shipment(order: Order) -> Created:
    if order.weight > HEAVIEST:
        raise TerminalError(f"order {order.id} weighs {order.weight:g} kg: no carrier takes it")
    write(f"created shipment-{order.id}")
    return Created(order.id, f"shipment-{order.id}")


@node("notify-customer")
def notify_customer(created: dict[str, Created]) -> str:
    records = ", ".join(sorted(one.record for one in created.values()))
    write(f"notified: {records}")
    return records


fulfil_order = (
    FlowBuilder("fulfil-order", input=Order)
    .triggered_by(manual("shop"))
    .then_parallel(
        "create-all",
        create_order.on_error(cancel_order),
        create_invoice.on_error(void_invoice),
        create_shipment.on_error(cancel_shipment),
    )
    .then(notify_customer)
    .build()
)
