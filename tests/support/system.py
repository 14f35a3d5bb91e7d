"""A whole system for a test: a server, coordinators, workers, a client; all ended with it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from resolute import Client
from resolute.errors import UnknownFlow
from resolute.store import registry
from resolute.store.store import Store
from resolute.testing.server import EmbeddedServer

LEASE = 3.0  # s
DEADLINE = 60.0  # s; a condition that takes longer is a failure, however slow the machine
MAX_STORED = 20_000_000  # bytes: a node that returns 100 MB fails
ROOT = Path(__file__).parents[2]

Condition = Callable[[], bool | Awaitable[bool]]


async def until(condition: Condition, what: str) -> None:
    """Wait until `condition` holds; the only place in these tests that passes time."""
    give_up = time.monotonic() + DEADLINE
    while True:
        answer = condition()
        if answer is True or (not isinstance(answer, bool) and await answer):
            return
        assert time.monotonic() < give_up, f"waited {DEADLINE:g} s until {what}"
        await asyncio.sleep(0.02)


class System:
    """Everything that a test starts; `lines` is the oracle outside Redis."""

    def __init__(self, server: EmbeddedServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.objects = folder.parent / "objects"  # the storage of all of them
        self.processes: list[subprocess.Popen[bytes]] = []

    def coordinator(self, *flags: str, **variables: str) -> subprocess.Popen[bytes]:
        return self._spawn("resolute-coord", "--lease", str(LEASE), *flags, **variables)

    def worker(
        self, *flags: str, app: str = "tests.e2e.app", queue: str = "e2e", **variables: str
    ) -> subprocess.Popen[bytes]:
        return self._spawn(
            "resolute-worker", "--queue", queue, "--app", app, "--lease", str(LEASE), *flags,
            **variables,
        )  # fmt: skip

    def environment(self, **variables: str) -> dict[str, str]:
        """What a process of this system is started with."""
        return {
            **os.environ,
            "RESOLUTE_REDIS": self.server.url,
            "RESOLUTE_TEST_FOLDER": str(self.folder),
            "RESOLUTE_STORAGE": str(self.objects),
            "RESOLUTE_MAX_STORED": str(MAX_STORED),
            **variables,
        }

    def _spawn(self, program: str, *flags: str, **variables: str) -> subprocess.Popen[bytes]:
        path = Path(sys.executable).parent / program
        with (self.folder / f"{program}-{len(self.processes)}.err").open("wb") as log:
            process = subprocess.Popen(
                [path, *flags], env=self.environment(**variables), cwd=ROOT, stderr=log
            )
        self.processes.append(process)
        return process

    @asynccontextmanager
    async def client(self) -> AsyncGenerator[Client]:
        storage = str(self.objects)
        async with Client.connect(self.server.url, patience=40, storage=storage) as client:
            yield client

    async def offered(self, client: Client, name: str, processes: int = 1) -> None:
        """Wait until so many live worker processes offer a flow."""

        async def is_there() -> bool:
            try:
                await client.directory.offered(name)
            except UnknownFlow:
                return False
            live = (await registry.processes(client.store)).values()
            return sum(name in process.flows for process in live) >= processes

        await until(is_there, f"{processes} processes offer {name}")

    def lines(self, *words: str) -> list[list[str]]:
        """What nodes noted, in order of time: the lines that begin with these words."""
        found = [
            line.split()
            for path in self.folder.glob("*.log")
            for line in path.read_text().splitlines()
        ]
        wanted = [line for line in found if line[: len(words)] == list(words)]
        return sorted(wanted, key=lambda line: float(line[-1]))

    def release(self, gate: str) -> None:
        (self.folder / gate).touch()

    def logs(self) -> str:
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')}"
            for path in sorted(self.folder.glob("*.err"))
        )

    def close(self) -> None:
        for process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def systems(folder: Path) -> Generator[Callable[[EmbeddedServer, int], System]]:
    """Makes systems, each on a server that it starts; ends them, and prints what they logged."""
    made: list[System] = []

    def make(server: EmbeddedServer, partitions: int) -> System:
        (folder / "oracle").mkdir()
        asyncio.run(first_use(server.start().url, partitions))
        made.append(System(server, folder / "oracle"))
        return made[-1]

    yield make
    for system in made:
        system.close()
        system.server.stop()
        print(system.logs())


async def first_use(url: str, partitions: int) -> None:
    """The first to use a namespace decides how many partitions it has."""
    store = await Store.open(url, partitions=partitions)
    await store.close()
