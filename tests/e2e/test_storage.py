"""Large values, end to end: processes die between an object and its commit; runs are deleted."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.large_documents.flows import Request
from examples.large_documents.flows import flow as example
from resolute import Client
from resolute.testing.server import ServerBinary
from tests.e2e.storing import DIED, TEXT, storing
from tests.support.system import System, until

APP = "tests.e2e.storing"


def objects(system: System) -> list[Path]:
    """What is in the storage now."""
    found = [path for path in system.objects.rglob("*") if path.is_file()]
    return [path for path in found if not path.name.startswith(".")]


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_process_killed_between_an_object_and_its_commit_loses_and_leaves_nothing(
    make_system: Callable[..., System], binary: ServerBinary, partitions: int
) -> None:
    system = make_system(binary, partitions=partitions)
    system.coordinator("--retention", "5s")
    system.worker("--processes", "2", app=APP)

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, storing.name, processes=2)
            begun = await client.start(storing, TEXT, id="large")
            assert await begun.result() == TEXT.upper()
            assert (system.folder / DIED).exists()
            assert await begun.query("length") == len(TEXT)
            assert len(system.lines("write")) == 2  # the node ran twice, and wrote twice
            history = await begun.history()
            assert [(one.name, one.crashes) for one in history] == [("write", 1), ("shout", 0)]
            await until(lambda: _is_gone(client, "large"), "its retention is over")
            await until(lambda: not objects(system), "its objects are deleted with it")

    asyncio.run(run())


async def _is_gone(client: Client, run_id: str) -> bool:
    key = client.store.keys.of(run_id).flow(run_id)
    return not await client.store.execute("EXISTS", key)


def test_a_document_of_megabytes_goes_through_a_flow(
    make_system: Callable[..., System], one_binary: ServerBinary
) -> None:
    system = make_system(one_binary)
    system.coordinator()
    system.worker("--processes", "2", app="examples.large_documents.flows")

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, example.name)
            begun = await client.start(example, Request(megabytes=5))
            summary = await begun.result()
            assert (summary.characters, summary.most_common) == (5_000_000, "durable")
            key = client.store.keys.of(begun.id).flow(begun.id)
            assert await client.store.execute("MEMORY", "USAGE", key, "SAMPLES", 0) < 20_000
            assert sum(path.stat().st_size for path in objects(system)) > 10_000_000

    asyncio.run(run())


def test_objects_wait_for_a_coordinator_that_has_the_storage(
    make_system: Callable[..., System], one_binary: ServerBinary
) -> None:
    system = make_system(one_binary)
    (system.folder / DIED).touch()
    first = system.coordinator("--retention", "1s", RESOLUTE_STORAGE="")
    system.worker(app=APP)

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, storing.name)
            begun = await client.start(storing, TEXT, id="large")
            assert await begun.result() == TEXT.upper()
            await until(lambda: _is_gone(client, "large"), "its retention is over")
            await until(lambda: "--storage" in system.logs(), "the coordinator says so")
            assert len(objects(system)) == 3
            os.kill(first.pid, signal.SIGKILL)
            system.coordinator("--retention", "1s")
            await until(lambda: not objects(system), "the next one deletes them")

    asyncio.run(run())
