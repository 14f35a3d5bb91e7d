"""The product under measurement: its own server, coordinator and worker, as a user starts them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

from resolute import Client
from resolute.errors import UnknownFlow
from resolute.status import RunStatus

QUEUE = "bench"


class Product:
    """Coordinators and workers as processes; a client to drive them."""

    def __init__(self, url: str, client: Client) -> None:
        self.url = url
        self.client = client
        self._processes: list[subprocess.Popen[bytes]] = []

    def start_coordinator(self, *flags: str) -> None:
        self._spawn("resolute-coord", *flags)

    def start_worker(self, processes: int = 2, concurrency: int = 100, folder: str = "") -> None:
        self._spawn(
            "resolute-worker", "--queue", QUEUE, "--app", "tests.bench.app",
            "--processes", str(processes), "--concurrency", str(concurrency), folder=folder,
        )  # fmt: skip

    def _spawn(self, program: str, *flags: str, folder: str = "") -> None:
        environment = dict(os.environ, RESOLUTE_REDIS=self.url, RESOLUTE_BENCH_FOLDER=folder)
        path = Path(sys.executable).parent / program
        command = [str(path), "--log-level", "warning", *flags]
        self._processes.append(subprocess.Popen(command, env=environment))

    async def ready(self, processes: int) -> None:
        """Wait until so many worker processes are registered."""
        while True:
            try:
                await self.client.directory.offered("bench-chain")
            except UnknownFlow:
                await asyncio.sleep(0.02)
                continue
            count = await self.client.store.execute("HLEN", self.client.store.keys.meta.processes)
            if count >= processes + 1:
                return
            await asyncio.sleep(0.02)

    async def completed(self) -> int:
        """How many runs have completed so far."""
        keys = self.client.store.keys
        counts = [
            await self.client.store.execute("ZCARD", p.ended(RunStatus.COMPLETED))
            for p in keys.partitions
        ]
        return sum(counts)

    async def throughput(self, flow: str, runs: int) -> float:
        """Start runs and wait until all completed; the seconds it took."""
        target = await self.completed() + runs
        began = time.perf_counter()
        await self.client.start_many(flow, [None] * runs)
        while await self.completed() < target:
            await asyncio.sleep(0.005)
        return time.perf_counter() - began

    async def latency(self, flow: str) -> float:
        """Start one run and wait for its result; the seconds it took."""
        began = time.perf_counter()
        run = await self.client.start(flow)
        await run.result()
        return time.perf_counter() - began

    def pids(self) -> list[int]:
        return [process.pid for process in self._processes]

    def stop(self) -> None:
        """Workers first, so that they can hand back."""
        for process in reversed(self._processes):
            process.terminate()
            process.wait(60)
        self._processes.clear()
