"""`scripts/bench`: measure, print a table, write JSON."""

from __future__ import annotations

import asyncio
import gc
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import click
import uvloop
from rich.console import Console
from rich.table import Table

from resolute import Client
from resolute.testing.server import EmbeddedServer
from tests.bench.app import LIMITER_NODES, LIMITER_RATE
from tests.bench.durability import measure_durability
from tests.bench.floor import Floor
from tests.bench.limiter import judge, read_starts
from tests.bench.monitor import count_commands
from tests.bench.product import Product
from tests.bench.waiting import measure_children, measure_list, measure_loop, measure_waiting
from tests.support.processes import children_of, resident_bytes

ENRICHMENT = (1, 3, 1, 1)
CHAIN = (1,) * 10
FANS = (1000, 10_000)
PARTS = (
    "idle",
    "speed",
    "sleepers",
    "waiting",
    "list",
    "children",
    "loop",
    "limiter",
    "durability",
)


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

    async def speed(self, product: Product, flows: int) -> None:
        """Enrichment, chain, fan-out: throughput and latency, in turns with the floor's."""
        await product.throughput("bench-enrichment", 500)
        with Floor(product.url, ENRICHMENT) as floor:
            await self._in_turns(
                "enrichment",
                "flows/s",
                self._rounds,
                lambda: flows / floor.run(flows),
                lambda: _rate(product, "bench-enrichment", flows),
            )
        rates = [await _rate(product, "bench-chain", flows // 2) for _ in range(self._rounds)]
        self.record("chain, throughput", statistics.median(rates), "flows/s")
        gc.collect()
        with Floor(product.url, CHAIN) as floor:
            await self._in_turns(
                "chain, idle",
                "ms",
                30 * self._rounds,
                lambda: floor.run(1) * 1000,
                lambda: _span(product, "bench-chain"),
            )
        for width in FANS:
            flow = f"bench-fan-{width}"
            await _span(product, flow)
            with Floor(product.url, (1, width, 1), count=500) as floor:
                await self._in_turns(
                    f"fan-out {width:,}",
                    "ms",
                    self._rounds,
                    lambda floor=floor: floor.run(1) * 1000,
                    lambda flow=flow: _span(product, flow),
                )

    async def _in_turns(
        self,
        name: str,
        unit: str,
        rounds: int,
        floor: Callable[[], float],
        ours: Callable[[], Awaitable[float]],
    ) -> None:
        """One round of the floor, one of ours, and so on: what else the machine does hits both."""
        pairs = [(await asyncio.to_thread(floor), await ours()) for _ in range(rounds)]
        self.record(f"floor: {name}", statistics.median(pair[0] for pair in pairs), unit)
        ratio = statistics.median(mine / least for least, mine in pairs)
        median = statistics.median(pair[1] for pair in pairs)
        self.record(name, median, unit, **{"of floor": ratio})

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
        sizes = [resident_bytes(pid) / 2**20 for pid in workers]
        if sizes:
            self.record("memory of a worker process", max(sizes), "MB")


async def _rate(product: Product, flow: str, flows: int) -> float:
    """Flows a second."""
    return flows / await product.throughput(flow, flows)


async def _span(product: Product, flow: str) -> float:
    """Milliseconds from start to result."""
    return await product.latency(flow) * 1000


def _short(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


async def measure(bench: Bench, parts: set[str], flows: int, limiter_seconds: float) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="resolute-bench-") as folder,
        EmbeddedServer(Path(folder)) as server,
    ):
        await _measure_product(bench, parts, flows, limiter_seconds, server.url, folder)
    if "durability" in parts:
        await measure_durability(bench.record)


async def _measure_product(
    bench: Bench, parts: set[str], flows: int, limiter_seconds: float, url: str, folder: str
) -> None:
    arrangements: list[tuple[str, dict[str, Any], Callable[[Product], Any]]] = [
        ("idle", {"processes": 2}, bench.idle),
        ("speed", {"processes": 2}, lambda product: bench.speed(product, flows)),
        ("sleepers", {"processes": 2, "concurrency": 600}, bench.sleepers),
        (
            "waiting",
            {"processes": 2},
            lambda product: measure_waiting(product, bench.record),
        ),
        ("list", {"processes": 2}, lambda product: measure_list(product, bench.record)),
        ("children", {"processes": 2}, lambda product: measure_children(product, bench.record)),
        ("loop", {"processes": 2}, lambda product: measure_loop(product, bench.record)),
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
@click.option("--rounds", default=5, help="Rounds; the median counts.")
@click.option("--limiter-seconds", default=20.0)
@click.option(
    "--only",
    multiple=True,
    type=click.Choice(PARTS),
    help="Only these parts.",
)
def main(path: str, flows: int, rounds: int, limiter_seconds: float, only: tuple[str, ...]) -> None:
    """Measure Resolute on this machine, against the floor of the same run."""
    console = Console()
    parts = set(only) or set(PARTS)
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
