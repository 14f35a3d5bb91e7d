"""`scripts/bench`: measure, print a table, write JSON."""

from __future__ import annotations

import asyncio
import gc
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console
from rich.table import Table

from resolute import Client
from resolute.testing.server import EmbeddedServer
from tests.bench.app import LIMITER_NODES, LIMITER_RATE
from tests.bench.floor import Floor
from tests.bench.limiter import judge, read_starts
from tests.bench.monitor import count_commands
from tests.bench.product import Product, children_of, resident_mb

ENRICHMENT = (1, 3, 1, 1)
CHAIN = (1,) * 10


class Bench:
    """One run of the benchmark: figures by name."""

    def __init__(self, console: Console, rounds: int) -> None:
        self._console = console
        self._rounds = rounds
        self.figures: dict[str, dict[str, Any]] = {}

    def record(self, name: str, value: float, unit: str, **more: Any) -> None:
        self.figures[name] = {"value": value, "unit": unit, **more}
        shown = "".join(f"  {key} {_short(item)}" for key, item in more.items())
        self._console.print(f"  {name}: {_short(value)} {unit}[dim]{shown}[/]", highlight=False)

    def floor(self, url: str, flows: int) -> None:
        """What scripts alone do on this machine at this moment."""
        floor = Floor(url, ENRICHMENT)
        rates = [flows / floor.run(flows) for _ in range(self._rounds)]
        self.record("floor: enrichment", statistics.median(rates), "flows/s")
        floor.close()
        floor = Floor(url, CHAIN)
        spans = [floor.run(1) * 1000 for _ in range(30 * self._rounds)]
        self.record("floor: chain, idle", statistics.median(spans), "ms")
        floor.close()
        for width in (1000, 10_000):
            floor = Floor(url, (1, width, 1), count=500)
            spans = [floor.run(1) * 1000 for _ in range(3)]
            self.record(f"floor: fan-out {width:,}", statistics.median(spans), "ms")
            floor.close()

    async def speed(self, product: Product, flows: int) -> None:
        """Enrichment, chain, fan-out: throughput and latency."""
        await product.throughput("bench-enrichment", 500)
        rates = [
            flows / await product.throughput("bench-enrichment", flows) for _ in range(self._rounds)
        ]
        self._against_floor("enrichment", statistics.median(rates), "flows/s")
        rates = [
            flows / 2 / await product.throughput("bench-chain", flows // 2)
            for _ in range(self._rounds)
        ]
        self.record("chain, throughput", statistics.median(rates), "flows/s")
        gc.collect()
        spans = [await product.latency("bench-chain") * 1000 for _ in range(30 * self._rounds)]
        self._against_floor("chain, idle", statistics.median(spans), "ms")
        for width in (1000, 10_000):
            spans = [await product.latency(f"bench-fan-{width}") * 1000 for _ in range(4)][1:]
            self._against_floor(f"fan-out {width:,}", statistics.median(spans), "ms")

    def _against_floor(self, name: str, value: float, unit: str) -> None:
        floor = self.figures.get(f"floor: {name}", {}).get("value")
        self.record(name, value, unit, **({"of floor": value / floor} if floor else {}))

    async def sleepers(self, product: Product) -> None:
        await product.latency("bench-sleepers")
        spans = [await product.latency("bench-sleepers") for _ in range(3)]
        self.record("1,000 sleepers of 1 s", statistics.median(spans), "s")

    async def limiter(self, product: Product, folder: Path, seconds: float) -> None:
        runs = round(seconds * 1.15 * LIMITER_RATE / LIMITER_NODES) + 1
        await product.client.start_many("bench-limiter", [None] * runs)
        await asyncio.sleep(seconds + 3)
        verdict = judge(read_starts(folder), LIMITER_RATE, LIMITER_RATE, seconds)
        self.record(
            "limiter, used", verdict.used * 100, "%", over=verdict.worst_excess,
            starts=verdict.starts,
        )  # fmt: skip

    async def idle(self, product: Product) -> None:
        """Commands that an idle system sends, and memory of its processes."""
        span = 20.0
        sent = await count_commands(product.url, span)
        workers = [c for pid in product.pids() for c in children_of(pid)]
        processes = len(workers) + len(product.pids())
        self.record("idle, commands of a process", sent / span / processes, "/s")
        sizes = [resident_mb(pid) for pid in workers]
        if sizes:
            self.record("memory of a worker process", max(sizes), "MB")


def _short(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


async def measure(bench: Bench, parts: set[str], flows: int, limiter_seconds: float) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="resolute-bench-") as folder,
        EmbeddedServer(Path(folder)) as server,
    ):
        if parts & {"speed", "floor"}:
            bench.floor(server.url, flows)
        await _measure_product(bench, parts, flows, limiter_seconds, server.url, folder)


async def _measure_product(
    bench: Bench, parts: set[str], flows: int, limiter_seconds: float, url: str, folder: str
) -> None:
    arrangements: list[tuple[str, dict[str, Any], Callable[[Product], Any]]] = [
        ("idle", {"processes": 2}, bench.idle),
        ("speed", {"processes": 2}, lambda product: bench.speed(product, flows)),
        ("sleepers", {"processes": 2, "concurrency": 600}, bench.sleepers),
        (
            "limiter",
            {"processes": 4, "folder": folder},
            lambda product: bench.limiter(product, Path(folder), limiter_seconds),
        ),
    ]
    async with Client.connect(url) as client:
        for part, options, run in arrangements:
            if part not in parts:
                continue
            product = Product(url, client)
            product.start_coordinator()
            product.start_worker(**options)
            try:
                await product.ready(options["processes"])
                await run(product)
            finally:
                product.stop()


@click.command()
@click.option("--json", "path", default="bench.json", help="Where the figures are written.")
@click.option("--flows", default=5000, help="Flows of a throughput round.")
@click.option("--rounds", default=3, help="Rounds; the median counts.")
@click.option("--limiter-seconds", default=20.0)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(["floor", "idle", "speed", "sleepers", "limiter"]),
    help="Only these parts.",
)
def main(path: str, flows: int, rounds: int, limiter_seconds: float, only: tuple[str, ...]) -> None:
    """Measure Resolute on this machine, against the floor of the same run."""
    console = Console()
    parts = set(only) or {"floor", "idle", "speed", "sleepers", "limiter"}
    console.print(f"Resolute bench: {flows:,} flows a round, {rounds} rounds, medians")
    bench = Bench(console, rounds)
    uvloop.run(measure(bench, parts, flows, limiter_seconds))
    table = Table(title="Resolute bench")
    for column in ("what", "figure", "unit", "of the floor"):
        table.add_column(column, justify="left" if column in ("what", "unit") else "right")
    for name, figure in bench.figures.items():
        ratio = figure.get("of floor")
        table.add_row(
            name, _short(figure["value"]), figure["unit"], f"{ratio:.2f}" if ratio else ""
        )
    console.print(table)
    report = {
        "machine": platform.platform(),
        "python": platform.python_version(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "figures": bench.figures,
    }
    Path(path).write_text(json.dumps(report, indent=2) + "\n")
    console.print(f"written to {path}")


if __name__ == "__main__":
    main()
