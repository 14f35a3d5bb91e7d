"""`scripts/leaks`: a million nodes, and back: keys, entries, consumers, memory."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from resolute import Client
from resolute.priority import lanes_of
from resolute.store import streams
from resolute.store.script import GROUP_COORDINATORS, GROUP_WORKERS
from resolute.store.store import Store
from resolute.testing.server import EmbeddedServer
from tests.bench.product import QUEUE, Product
from tests.support.keyspace import all_keys
from tests.support.processes import children_of, resident_bytes
from tests.support.system import first_use

FLOWS = ("bench-enrichment", "bench-chain", "bench-fan-1000")
BATCHES = {"bench-enrichment": 500, "bench-chain": 200, "bench-fan-1000": 3}  # runs started at once
OPEN = 3_000  # runs at most, so that it is the system that is measured, not a backlog
WARM = 0.05  # of the nodes are run before the baseline is taken
RETENTION = 5  # s
SLACK_MB = 12.0  # that a process may have grown: its allocator's, not a leak's, at any length


@dataclass(frozen=True)
class Census:
    """What there is when all is quiet. Memory in MB; of several processes the largest."""

    keys: int
    pending: int
    consumers: int
    redis_used: float
    worker: float
    supervisor: float
    coordinator: float
    client: float

    def grown(self, since: Census) -> list[str]:
        """What is more than it was, beyond what an allocator keeps."""
        found = [
            f"{name}: {getattr(since, name):,}, then {getattr(self, name):,}"
            for name in ("keys", "pending", "consumers")
            if getattr(self, name) > getattr(since, name)
        ]
        return found + [
            f"{name}: {getattr(since, name):.1f} MB, then {getattr(self, name):.1f} MB"
            for name in ("redis_used", "worker", "supervisor", "coordinator", "client")
            if getattr(self, name) > getattr(since, name) + SLACK_MB
        ]


async def census(store: Store, product: Product) -> Census:
    coordinator, worker = product.pids()
    readers = [
        (stream, group)
        for partition in store.keys.partitions
        for stream, group in (
            (partition.inbox, GROUP_COORDINATORS),
            *((partition.queue(lane), GROUP_WORKERS) for lane in lanes_of(QUEUE)),
        )
    ]
    counts = await streams.consumers(store, readers)
    info = str(await store.execute("INFO", "memory"), "utf-8")
    used = int(info.partition("used_memory:")[2].split()[0])

    def largest(*pids: int) -> float:
        return max(resident_bytes(pid) for pid in pids) / 2**20

    return Census(
        keys=len(await all_keys(store)),
        pending=sum(sum(one.values()) for one in counts),
        consumers=max(len(one) for one in counts),
        redis_used=used / 2**20,
        worker=largest(*children_of(worker)),
        supervisor=largest(worker),
        coordinator=largest(coordinator),
        client=largest(os.getpid()),
    )


async def completed(store: Store) -> int:
    """How many nodes have completed in this namespace."""
    found = [await store.execute("HGET", p.stats, "nodes_completed") for p in store.keys.partitions]
    return sum(int(count or 0) for count in found)


async def open_runs(store: Store) -> int:
    return sum([await store.execute("ZCARD", p.open) for p in store.keys.partitions])


async def drive(client: Client, nodes: int, say: Console) -> None:
    """Start runs until so many nodes more have completed."""
    store = client.store
    target = await completed(store) + nodes
    told = time.monotonic()
    for flow in itertools.cycle(FLOWS):
        done = await completed(store)
        if done >= target:
            break
        if time.monotonic() - told > 5:
            told = time.monotonic()
            say.print(f"  {target - done:,} nodes to go", highlight=False)
        if await open_runs(store) < OPEN:
            await client.start_many(flow, [None] * BATCHES[flow])
        else:
            await asyncio.sleep(0.05)


async def quiet(store: Store) -> None:
    """Wait until every run has ended and was deleted."""
    while any(":f:" in key for key in await all_keys(store)):
        await asyncio.sleep(0.5)


async def soak(nodes: int, partitions: int, say: Console) -> list[str]:
    """What has grown; a table of everything is printed."""
    with (
        tempfile.TemporaryDirectory(prefix="resolute-leaks-") as folder,
        EmbeddedServer(Path(folder)) as server,
    ):
        await first_use(server.url, partitions)
        store = await Store.open(server.url)
        async with Client.connect(server.url) as client:
            product = Product(server.url, client)
            try:
                product.start_coordinator("--retention", f"{RETENTION}s")
                product.start_worker()
                await product.ready(2)
                await drive(client, round(nodes * WARM), say)
                await quiet(store)
                before = await census(store, product)
                began = time.monotonic()
                await drive(client, nodes, say)
                seconds = time.monotonic() - began
                await quiet(store)
                after = await census(store, product)
            finally:
                product.stop()
        await store.close()
    say.print(_table(nodes, seconds, before, after))
    return after.grown(before)


def _table(nodes: int, seconds: float, before: Census, after: Census) -> Table:
    table = Table(box=None, pad_edge=False, title=f"{nodes:,} nodes in {seconds:.0f} s")
    for name in ("", "before", "after"):
        table.add_column(name, justify="left" if not name else "right")
    for name in Census.__dataclass_fields__:
        values = [getattr(one, name) for one in (before, after)]
        unit = " MB" if isinstance(values[0], float) else ""
        table.add_row(name.replace("_", " "), *(f"{value:,.0f}{unit}" for value in values))
    return table


@click.command(context_settings={"show_default": True})
@click.option("--nodes", type=click.IntRange(10_000), default=1_000_000)
@click.option("--partitions", type=click.IntRange(1), default=1)
def main(nodes: int, partitions: int) -> None:
    """Run many nodes, let retention delete their runs, and look what is left."""
    console = Console()
    grown = asyncio.run(soak(nodes, partitions, console))
    for line in grown:
        console.print(f"GROWN {line}", style="red", highlight=False)
    sys.exit(1 if grown else 0)


if __name__ == "__main__":
    main()
