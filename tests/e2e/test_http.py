"""APIs over HTTP, called by real workers: a pause that all share, health, and secrets."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.answer_issues import flows as issues
from examples.answer_issues.server import TOKEN
from examples.answer_issues.server import serving as tracking
from resolute import FlowFailed
from resolute.store.store import Store
from resolute.testing.server import ServerBinary
from tests.e2e.calling import Ask, asking
from tests.support.api import Api, Asked, Told, serving
from tests.support.system import ROOT, System, until

APP = "tests.e2e.calling"
SECRET = "s3cret-t0ken"
PAUSE = 3  # s


@pytest.fixture(autouse=True)
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the workers too, which get this environment."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as found:
        yield found


def worker(system: System, api: Api, name: str, *flags: str) -> None:
    variables = {"TEST_API": api.url, "TEST_WORKER": name, "TEST_TOKEN": SECRET}
    system.worker(*flags, app=APP, **variables)


@pytest.mark.parametrize("partitions", [1, 3])
def test_all_workers_leave_an_api_alone_that_told_one_of_them_to(
    make_system: Callable[..., System], one_binary: ServerBinary, api: Api, partitions: int
) -> None:
    system = make_system(one_binary, partitions=partitions)
    system.coordinator()
    for name in ("a", "b"):
        worker(system, api, name, "--concurrency", "4")
    both = threading.Barrier(2)
    met: set[str] = set()

    def answer(asked: Asked) -> Told:
        if asked.path == "/ask/0":
            used_up = {"RateLimit-Remaining": "0", "RateLimit-Reset": str(PAUSE)}
            return Told(0, headers=used_up)
        return Told(1)

    def hold(asked: Asked) -> None:
        """The first call of each worker waits for the other's: so both have some."""
        name = asked.headers.get("x-worker", "")
        if asked.path not in ("/ask/0", "/status") and name not in met:
            met.add(name)
            both.wait(30)

    api.answer, api.before = answer, hold

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, asking.name, processes=2)
            await (await client.start(asking, Ask(0))).result(timeout=60)
            runs = await client.start_many(asking, [Ask(number) for number in range(1, 31)])
            await asyncio.gather(*(one.result(timeout=60) for one in runs))

    asyncio.run(run())
    calls = [asked for asked in api.asked if asked.path != "/status"]
    first, others = calls[0], calls[1:]
    assert len(others) == 30
    assert {asked.headers["x-worker"] for asked in others} == {"a", "b"}
    # By its own clock the API counts from when it answered; Redis's clock may differ a little.
    assert min(asked.at for asked in others) - first.at >= PAUSE - 0.1


def doctor(system: System) -> Any:
    done = subprocess.run(
        [Path(sys.executable).parent / "resolute", "doctor", "--json"],
        env=system.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    return json.loads(done.stdout)


async def everything(system: System) -> bytes:
    """All that Redis has."""
    store = await Store.open(system.server.url)
    try:
        keys = await store.execute("KEYS", "*")
        dumps = await store.execute_all([("DUMP", key) for key in keys])
        return b"".join([*keys, *dumps])
    finally:
        await store.close()


def test_an_api_that_is_ill_is_known_to_doctor_and_stops_no_node(
    make_system: Callable[..., System], one_binary: ServerBinary, api: Api
) -> None:
    system = make_system(one_binary)
    system.coordinator()

    def answer(asked: Asked) -> Told:
        if asked.path == "/status":
            return Told(f"down, {asked.headers['x-token']}", status=503)
        return Told("gone", status=410) if asked.path == "/ask/9" else Told(7)

    api.answer = answer
    worker(system, api, "a", "--processes", "2")

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, asking.name, processes=2)
            assert await (await client.start(asking, Ask(1))).result(timeout=60) == 7
            with pytest.raises(FlowFailed, match="status 410"):
                await (await client.start(asking, Ask(9))).result(timeout=60)
            await until(lambda: len([a for a in api.asked if a.path == "/status"]) >= 2, "checks")
            found = await asyncio.to_thread(doctor, system)
            while not any("ill in 2 of 2" in finding["text"] for finding in found["findings"]):
                await asyncio.sleep(0.1)
                found = await asyncio.to_thread(doctor, system)
            (finding,) = (f for f in found["findings"] if f["check"] == "health of api")
            assert '/status: status 503: "down, ***"' in finding["text"]
            assert (finding["severity"], found["healthy"]) == ("problem", False)
            workers = [p for p in found["processes"] if p["kind"] == "worker"]
            assert [list(process["ill"]) for process in workers] == [["api"], ["api"]]
            assert SECRET.encode() not in await everything(system)

    asyncio.run(run())
    assert SECRET not in system.logs() and "provider api: GET 127.0.0.1" in system.logs()


@pytest.mark.parametrize("partitions", [1, 3])
def test_every_issue_gets_one_answer_and_the_tracker_is_left_alone_when_it_asks(
    make_system: Callable[..., System], binary: ServerBinary, partitions: int
) -> None:
    system = make_system(binary, partitions=partitions)
    system.coordinator()
    with tracking() as tracker:
        variables = {"TRACKER_URL": tracker.url, "TRACKER_TOKEN": TOKEN}
        system.worker("--processes", "2", app="examples.answer_issues.flows", **variables)

        async def run() -> None:
            async with system.client() as client:
                await system.offered(client, issues.flow.name, processes=2)
                run = await client.start(issues.flow, issues.Search("books"))
                posted = await run.result(timeout=60)
                assert len(posted) == tracker.issues

        asyncio.run(run())
        bodies = [comment["body"] for comment in tracker.comments.values()]
        assert sorted(bodies) == [f"Thank you for “Issue {n}”." for n in range(1, 9)]
        assert tracker.refused


def test_the_example_runs_by_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "examples.answer_issues"],
        cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.startswith("completed: 8 of 8 issues have an answer\n")
