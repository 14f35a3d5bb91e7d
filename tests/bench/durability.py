"""What each level of durability costs a start: starts a second, and how long one takes."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from resolute import Client
from resolute.durability import Level
from resolute.errors import DurabilityUnavailable
from resolute.testing.server import EmbeddedServer
from tests.support.durable import ALWAYS, EVERYSEC, FLOW, Scene, scene

CALLERS = (1, 100)
SPAN = 4.0  # s of a measurement

Record = Callable[..., None]


async def measure_durability(record: Record) -> None:
    """Each level with one caller and with a hundred, on a server of its own with a replica."""
    with (
        tempfile.TemporaryDirectory(prefix="resolute-bench-") as folder,
        EmbeddedServer(Path(folder) / "primary") as server,
    ):
        options = ["--replicaof", "127.0.0.1", str(server.port)]
        replica = EmbeddedServer(Path(folder) / "replica", options=options)
        async with scene(server) as on:
            print(f"  {server.binary.name} {server.binary.version}", flush=True)
            await _level(record, on, "fast", "everysec")
            await _level(record, on, "fsync", "everysec")
            await on.stage.store.execute(*ALWAYS)
            await _level(record, on, "fast", "always")
            await _level(record, on, "fsync", "always")
            await on.stage.store.execute(*EVERYSEC)
            with replica:
                while await on.stage.store.execute("WAIT", 1, 1000) < 1:
                    pass
                await _level(record, on, "fast", "everysec, a replica")
                await _level(record, on, "replicated", "everysec, a replica")
                replica.kill()


async def _level(record: Record, on: Scene, level: Level, server: str) -> None:
    for callers in CALLERS:
        name = f"{level} ({server}), {callers} at once"
        try:
            rate, median = await _starts(on.client, level, callers)
        except DurabilityUnavailable as error:
            print(f"  {level} ({server}): refused: {error.has}", flush=True)
            return
        record(name, rate, "starts/s", **{"median ms": median * 1000})


async def _starts(client: Client, level: Level, callers: int) -> tuple[float, float]:
    """Starts a second, and the median time of one (s), of so many callers in a loop each."""
    spans: list[float] = []
    stop = time.perf_counter() + SPAN

    async def call() -> None:
        while (began := time.perf_counter()) < stop:
            await client.start(FLOW, "x", durability=level)
            spans.append(time.perf_counter() - began)

    await client.start(FLOW, "x", durability=level)
    began = time.perf_counter()
    await asyncio.gather(*(call() for _ in range(callers)))
    return len(spans) / (time.perf_counter() - began), statistics.median(spans)
