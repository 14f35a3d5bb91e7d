"""Fixtures of the fault tests: a seed from outside, servers, and drills on systems of processes."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from resolute.testing.server import EmbeddedServer, ServerBinary, find_servers
from tests.faults.cases import USUAL, Case
from tests.faults.chaos import LEASE, Plan, Report, Soak
from tests.faults.nemesis import Inject
from tests.support.system import System, systems

SERVERS = find_servers()
LIGHT = 20  # runs kept open beside a fault
MEMORY = Path("/dev/shm")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--seed", type=int, default=1, help="of every choice that fault tests make")


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """The seed of this run; `scripts/faults` tries many."""
    return int(str(request.config.getoption("--seed")))


@pytest.fixture
def random(seed: int) -> Random:
    return Random(seed)


@pytest.fixture
def binary(seed: int) -> ServerBinary:
    """A server program of this machine; which one, the seed says."""
    return SERVERS[seed % len(SERVERS)]


@pytest.fixture
def quick_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk that never hangs: in memory, where there is such a one.

    Under everysec a server answers before it has written where its fsync takes long, as it does
    beside other tests; a kill then costs what no kill costs else (docs/durability.md).
    """
    if not os.access(MEMORY, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        yield Path(folder)


Drill = Callable[..., Report]


@pytest.fixture
def drill(quick_disk: Path, seed: int, binary: ServerBinary) -> Drill:
    """Plays a scenario under load, drains, judges; nothing may be broken."""

    def play(
        scenario: Inject,
        *,
        cases: Sequence[Case] = USUAL,
        workers: int = 2,
        coordinators: int = 1,
        partitions: int | None = None,
        open_runs: int = LIGHT,
        lease: float = LEASE,
        processes: int = 1,
        appendfsync: str = "everysec",
    ) -> Report:
        plan = Plan(
            seconds=0.0,
            seed=seed,
            workers=workers,
            coordinators=coordinators,
            partitions=partitions or (1, 3)[seed % 2],
            faults=(),
            open_runs=open_runs,
            cases=cases,
            processes=processes,
            lease=lease,
            binary=binary,
            appendfsync=appendfsync,
        )
        report = asyncio.run(Soak(plan, quick_disk / "drill", print).run(scenario))
        assert not report.broken, "\n".join(
            [f"seed {seed}", *map(str, report.broken), *report.histories.values()]
        )
        return report

    return play


MakeSystem = Callable[..., System]


@pytest.fixture
def make_system(tmp_path: Path, seed: int, binary: ServerBinary) -> Iterator[MakeSystem]:
    """A server, and what a test starts on it: for what a drill's load cannot show."""
    with systems(tmp_path) as started:

        def make(
            *, binary: ServerBinary = binary, folder: Path | None = None, **options: Any
        ) -> System:
            server = EmbeddedServer(folder or tmp_path / "server", binary=binary, **options)
            return started(server, (1, 3)[seed % 2])

        yield make
