"""The order example: all is done, or what was done is undone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from examples.fulfil_order.flows import Order, fulfil_order
from resolute import FlowFailed
from resolute.status import NodeStatus
from resolute.testing.server import ServerBinary
from tests.support.system import System


def test_an_order_is_created_whole_or_undone_in_reverse(
    make_system: Callable[..., System], binary: ServerBinary
) -> None:
    system = make_system(binary)
    ledger = system.folder / "ledger.txt"
    system.coordinator()
    system.worker("--processes", "2", app="examples.fulfil_order.flows", ORDER_LEDGER=str(ledger))

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "fulfil-order")
            good = await client.start(fulfil_order, Order("good"))
            assert await good.result() == "invoice-good, order-good, shipment-good"
            # The invoice takes longer than the failure: it completes after it, and is undone too.
            bad = await client.start(fulfil_order, Order("bad", 250, invoice_seconds=1))
            with pytest.raises(
                FlowFailed, match="create-shipment: TerminalError: order bad weighs"
            ):
                await bad.result()
            history = {record.name: record for record in await bad.history()}
            assert history["create-invoice"].status is NodeStatus.COMPLETED
            shipment, invoice = history["create-shipment"], history["create-invoice"]
            assert shipment.ended is not None
            assert invoice.ended is not None
            assert shipment.ended < invoice.ended
            assert "cancel-shipment" not in history
            assert "notify-customer" not in history

    asyncio.run(run())
    lines = [line for line in ledger.read_text().splitlines() if line.endswith("-bad")]
    assert lines == [
        "created order-bad",
        "created invoice-bad",
        "voided invoice-bad",
        "cancelled order-bad",
    ]
