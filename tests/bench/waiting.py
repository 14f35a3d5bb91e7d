"""What it costs to wait and to be many: 100,000 runs at a gate, 100,000 items of one list."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from tests.bench.monitor import count_commands
from tests.bench.product import Product
from tests.support.processes import children_of, resident_bytes

GATES = 100_000
ITEMS = 100_000
CHILDREN = 10_000
TURNS = 100_000
BATCH = 2000  # runs started by one call
QUIET = 10.0  # s over which an idle system is watched

Record = Callable[..., None]


async def measure_waiting(product: Product, record: Record) -> None:
    """Memory of a run at a gate, what it costs while it waits, and how fast gates are passed."""
    store = product.client.store
    before = await _used(product)
    began = time.perf_counter()
    ids = [f"gate-{number}" for number in range(GATES)]
    for at in range(0, GATES, BATCH):
        batch = ids[at : at + BATCH]
        await product.client.start_many("bench-gate", [None] * len(batch), ids=batch)
    partition = store.keys.partitions[0]
    while await store.execute("XLEN", partition.inbox):
        await asyncio.sleep(0.05)
    record("gates reached", GATES / (time.perf_counter() - began), "/s")
    record("memory of a run at a gate", (await _used(product) - before) / GATES, "bytes of Redis")
    sent = await count_commands(product.url, QUIET)
    record("commands while all wait", sent / QUIET, "/s", processes=len(product.pids()) + 2)
    some = ids[:BATCH]
    target = await product.completed() + len(some)
    began = time.perf_counter()
    await asyncio.gather(*(product.client.signal(one, "go") for one in some))
    while await product.completed() < target:
        await asyncio.sleep(0.01)
    record("gates passed by signals", len(some) / (time.perf_counter() - began), "/s")


async def measure_list(product: Product, record: Record) -> None:
    """A node for each of many items: how fast, how much memory, and the longest script."""
    await _measure_many(product, record, "list", ITEMS)


async def measure_children(product: Product, record: Record) -> None:
    """A run for each of many inputs: the same of those."""
    await _measure_many(product, record, "children", CHILDREN)


async def measure_loop(product: Product, record: Record) -> None:
    """Turn after turn: the same, and what the run's hash has grown to."""
    await _measure_many(product, record, "loop", TURNS)
    for name in ("bench-loop-small", "bench-loop"):
        (run,) = await product.client.list(flow=name, limit=1)
        key = product.client.store.keys.of(run.id).flow(run.id)
        fields = await product.client.store.execute("HLEN", key)
        size = await product.client.store.execute("MEMORY", "USAGE", key, "SAMPLES", 0)
        record(f"{name}: hash at its end", size, "bytes of Redis", fields=fields)


async def _measure_many(product: Product, record: Record, what: str, count: int) -> None:
    store = product.client.store
    pids = [*product.pids(), *(c for pid in product.pids() for c in children_of(pid))]
    await product.latency(f"bench-{what}-small")
    before = {pid: resident_bytes(pid) for pid in pids}
    await store.execute("CONFIG", "SET", "slowlog-log-slower-than", 1000)
    await store.execute("CONFIG", "SET", "slowlog-max-len", 10_000)
    await store.execute("SLOWLOG", "RESET")
    seconds = await product.latency(f"bench-{what}")
    record(f"{what}: of {count:,}", count / seconds, "/s")
    grown = max(resident_bytes(pid) - was for pid, was in before.items()) / 2**20
    record(f"{what}: memory, most that a process grew", grown, "MB")
    slow: Any = await store.execute("SLOWLOG", "GET", 10_000)
    scripts = [int(entry[2]) / 1000 for entry in slow if bytes(entry[3][0]).upper() == b"EVALSHA"]
    record(f"{what}: longest script", max(scripts, default=1.0), "ms")


async def _used(product: Product) -> int:
    info = str(await product.client.store.execute("INFO", "memory"), "utf-8")
    return int(info.partition("used_memory:")[2].split()[0])
