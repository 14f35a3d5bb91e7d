"""One coordinator and two worker processes for all tests of the command line, beside a server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from resolute.cli.exits import Exit
from resolute.store.store import Store
from resolute.testing.server import EmbeddedServer
from tests.cli.helpers import Cli, Examine, until

LEASE = "3s"
NAMESPACE = "cli"
APP = Path(__file__).parent / "app.py"
PROCESSES = 2


@pytest.fixture(scope="session")
def cli(server: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """A command line whose server is served by a coordinator and workers with the test app."""
    folder = tmp_path_factory.mktemp("deployment")
    called = Cli(server.url, NAMESPACE)
    running: list[subprocess.Popen[bytes]] = []
    try:
        for program, *flags in (
            ("resolute-coord",),
            ("resolute-worker", "--app", str(APP), "--queue", "default", "--grace", "1s",
             "--processes", str(PROCESSES)),
        ):  # fmt: skip
            command = [str(Path(sys.executable).parent / program), "--lease", LEASE, *flags]
            environment = {**os.environ, "RESOLUTE_REDIS": server.url}
            environment["RESOLUTE_NAMESPACE"] = NAMESPACE
            with (folder / f"{program}.log").open("wb") as log:
                running.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        until(lambda: is_ready(called, running, folder), "the workers offer their flows")
        yield called
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait(30)


def is_ready(cli: Cli, running: list[subprocess.Popen[bytes]], folder: Path) -> bool:
    for process in running:
        assert process.poll() is None, "\n".join(log.read_text() for log in folder.iterdir())
    try:
        rows = cli.json("flows")
    except AssertionError:
        return False  # the namespace is not there yet
    return bool(rows) and all(row["processes"] == PROCESSES for row in rows)


@pytest.fixture
def gate(cli: Cli, tmp_path: Path) -> Iterator[Path]:
    """A file: nodes that wait for it end once it exists, at the latest with the test."""
    path = tmp_path / "gate"
    yield path
    path.touch()


@pytest.fixture
def examine(store: Store, server: EmbeddedServer, runner: asyncio.Runner) -> Examine:
    """Runs doctor on the test's own namespace, which must have problems; what it says."""
    cli = Cli(server.url, store.keys.meta.namespace)
    return lambda: cli.json("doctor", code=Exit.FAILED)
