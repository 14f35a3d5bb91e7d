"""Fault 20: the disk of the server is full."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from resolute import Client
from resolute.errors import ResoluteError, StoreUnavailable
from tests.faults import app
from tests.faults.app import QUEUE, Work
from tests.faults.cluster import APP
from tests.faults.conftest import MakeSystem
from tests.support.system import until

SMALL, LARGE = "3m", "64m"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """A disk of its own for the server; called with another size, it has that size from then on."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a small disk")

    def mount(*options: str) -> subprocess.CompletedProcess[bytes]:
        words = ["mount", "-t", "tmpfs", "-o", ",".join(options), "none", str(folder)]
        return subprocess.run(words, capture_output=True, check=False)

    if mount(f"size={SMALL}").returncode:
        pytest.skip("this machine does not let us mount a small disk")

    def resize(size: str) -> Path:
        answer = mount("remount", f"size={size}")
        assert answer.returncode == 0, answer.stderr
        return folder

    try:
        yield resize
    finally:
        subprocess.run(["umount", "--lazy", folder], check=False)


@pytest.mark.parametrize("appendfsync", ["always", "everysec"])
def test_20_a_full_disk_loses_nothing_acknowledged_and_work_resumes_when_there_is_room(
    make_system: MakeSystem, disk: Callable[[str], Path], appendfsync: str
) -> None:
    """With `always` the server ends itself when it cannot write; with `everysec` it refuses."""
    system = make_system(folder=disk(SMALL) / "server", appendfsync=appendfsync)
    system.coordinator()
    system.worker(app=APP, queue=QUEUE)

    async def run() -> None:
        async with Client.connect(system.server.url, patience=0.5) as client:
            await system.offered(client, app.sequence.name)
            acknowledged = await fill(client)
            assert acknowledged
            if appendfsync == "always":
                await until(lambda: not system.server.running, "the server has ended itself")
            disk(LARGE)
            if not system.server.running:
                await asyncio.to_thread(system.server.start)
        async with system.client() as client:
            later = await client.start(app.sequence, Work(1))
            for one in [await client.get(name) for name in acknowledged] + [later]:
                assert (await one.result(app.Made)).value == 3
                for record in await one.history():
                    assert (record.attempts, record.crashes) == (1, 0)
        assert "Traceback" not in system.logs()

    asyncio.run(run())


async def fill(client: Client) -> list[str]:
    """Start runs until the server takes no more; those that were acknowledged."""
    acknowledged: list[str] = []
    while True:
        names = [f"run-{len(acknowledged) + n}" for n in range(50)]
        try:
            await client.start_many(app.sequence, [Work(1)] * len(names), ids=names)
        except ResoluteError as error:
            assert isinstance(error, StoreUnavailable) or "MISCONF" in str(error)
            return acknowledged
        acknowledged += names
