"""Another team's nodes, run by name: two workers with different code, and one of them late."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.charge_cards.shop import Order, Tickets, flow
from resolute import Client, FlowFailed, RunStatus
from resolute.cli.show.snapshot import take_snapshot
from resolute.cli.show.waiting import WaitKind
from resolute.testing.server import ServerBinary
from tests.support.system import System, until

SHOP = "examples.charge_cards.shop"
PAYMENTS = "examples.charge_cards.payments"


async def waits_for_worker(client: Client, run_id: str) -> bool:
    waits = (await take_snapshot(client, run_id)).waits
    return [wait.kind for wait in waits] == [WaitKind.WORKER]


def findings_of(system: System) -> list[str]:
    done = subprocess.run(
        [Path(sys.executable).parent / "resolute", "doctor", "--json"],
        env=system.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    return [finding["text"] for finding in json.loads(done.stdout)["findings"]]


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_run_waits_for_the_team_that_has_the_node_and_ends_when_it_comes(
    make_system: Callable[..., System], binary: ServerBinary, partitions: int
) -> None:
    system = make_system(binary, partitions=partitions)
    system.coordinator()
    shop = system.worker(app=SHOP, queue="shop")

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, flow.name)
            one = await client.start(flow, Order("4242", 2))
            await until(lambda: waits_for_worker(client, one.id), "it waits for a worker")
            # A worker of that queue without the node puts it where the right one finds it.
            stranger = system.worker(app=SHOP, queue="payments")
            found = await asyncio.to_thread(findings_of, system)
            while not any("of node cards.charge, which no worker" in text for text in found):
                await asyncio.sleep(0.1)
                found = await asyncio.to_thread(findings_of, system)
            assert await waits_for_worker(client, one.id)
            os.kill(shop.pid, signal.SIGKILL)
            system.worker(app=SHOP, queue="shop")
            system.worker(app=PAYMENTS, queue="payments")
            result = await one.result(timeout=60)
            assert result == Tickets(["seat-0", "seat-1"], result.receipt)
            assert result.receipt.startswith(one.id)
            two = await client.start(flow, Order("4242", 20), queue="shop")
            with pytest.raises(FlowFailed, match="sold out"):
                await two.result(timeout=60)
            undone = [record.name for record in await two.history() if record.compensates]
            assert undone == ["cards.refund"]
            three = await client.start(flow, Order("declined"), queue="shop")
            with pytest.raises(FlowFailed, match="the card was declined"):
                await three.result(timeout=60)
            again = await client.retry(three.id)
            with pytest.raises(FlowFailed, match="the card was declined"):
                await again.result(timeout=60)
            assert await again.status() is RunStatus.FAILED
            stranger.terminate()

    asyncio.run(run())


def test_a_process_that_dies_with_another_teams_node_is_replaced(system: System) -> None:
    for queue, app in (("shop", SHOP), ("payments", PAYMENTS)):
        system.worker("--processes", "1", app=app, queue=queue)

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, flow.name)
            runs = await client.start_many(
                flow, [Order("4242", 1 + n % 12) for n in range(60)], queue="shop"
            )
            os.kill(system.processes[-1].pid, signal.SIGKILL)
            system.worker(app=PAYMENTS, queue="payments")
            results = await asyncio.gather(
                *(one.result(timeout=60) for one in runs), return_exceptions=True
            )
            failed = [found for found in results if isinstance(found, FlowFailed)]
            assert len(failed) == 10 and all("sold out" in str(one) for one in failed)

    asyncio.run(run())
