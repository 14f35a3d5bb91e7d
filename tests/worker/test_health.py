"""Health checks beside the nodes: what they say, what is told of it, and whom they harm."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from resolute import Provider, node
from resolute.errors import StoreUnavailable
from resolute_worker.health import MOST_SAID, HealthChecks


@node("charge")
async def charge(cents: int) -> int:
    return cents


def provider(name: str, health: Any) -> Provider:
    return Provider(name, "1", [charge], health=health)


class Told:
    """What was reported, in order."""

    def __init__(self, failures: int = 0) -> None:
        self.reports: list[dict[str, str]] = []
        self._failures = failures

    async def __call__(self, ill: Mapping[str, str]) -> None:
        if self._failures:
            self._failures -= 1
            raise StoreUnavailable("away")
        self.reports.append(dict(ill))


def well() -> None: ...


async def well_too() -> str:
    return ""


def says() -> str:
    return "no\nmoney " + "!" * 1000


async def says_too() -> str:
    return "no \ud800 money"


def raises() -> None:
    raise ValueError("broken")


def leaves() -> None:
    sys.exit("bye")


async def leaves_too() -> None:
    raise KeyboardInterrupt


def wrong() -> bool:
    return True


class Silent(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def unspeakable() -> None:
    raise Silent


@pytest.mark.parametrize(
    ("health", "said"),
    [
        (well, None),
        (well_too, None),
        (says, "no money !!!"),
        (says_too, "no ? money"),
        (raises, "ValueError: broken"),
        (leaves, "SystemExit: bye"),
        (leaves_too, "KeyboardInterrupt"),
        (wrong, "its health check: expected None or a text, got a bool"),
        (unspeakable, "Silent: <the error's own str() raised RuntimeError>"),
    ],
)
async def test_what_a_check_says(health: Any, said: str | None):
    told = Told()
    await HealthChecks([provider("cards", health)], told).look()
    if said is None:
        assert told.reports == []
    else:
        ((name, text),) = told.reports[0].items()
        assert name == "cards" and text.startswith(said) and len(text) <= MOST_SAID + 1


async def test_only_changes_are_told():
    ill: list[str] = ["away"]
    told = Told()
    checks = HealthChecks([provider("a", lambda: ill[0]), provider("b", well)], told)
    for text in ("away", "away", "closed", "", "", "away"):
        ill[0] = text
        await checks.look()
    assert told.reports == [{"a": "away"}, {"a": "closed"}, {}, {"a": "away"}]


async def test_what_could_not_be_told_is_told_in_the_next_round():
    told = Told(failures=1)
    checks = HealthChecks([provider("a", says)], told)
    await checks.look()
    assert told.reports == []
    await checks.look()
    assert len(told.reports) == 1


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_a_check_that_hangs_is_ill_and_is_not_called_beside_itself(kind: str):
    gate, called = threading.Event(), list[int]()

    def hangs() -> None:
        called.append(1)
        gate.wait(20)

    async def hangs_too() -> None:
        hangs()  # it does not let go of its loop either

    told = Told()
    health = hangs if kind == "plain" else hangs_too
    checks = HealthChecks([provider("a", health), provider("b", raises)], told, patience=0.02)
    try:
        await checks.look()
        await checks.look()
    finally:
        gate.set()
    first = {"a": "its health check does not end within 0.02 s", "b": "ValueError: broken"}
    assert told.reports == [first] and len(called) == 1
    while told.reports[-1] != {"b": "ValueError: broken"}:
        await checks.look()
    await checks.look()
    assert len(called) >= 2


async def test_an_async_check_that_waits_for_too_long_is_stopped():
    stopped = threading.Event()

    async def waits() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.set()

    told = Told()
    await HealthChecks([provider("a", waits)], told, patience=0.05).look()
    assert await asyncio.to_thread(stopped.wait, 20)
    assert list(told.reports[0]) == ["a"]


async def test_rounds_come_one_after_the_other_until_they_are_cancelled():
    called = asyncio.Semaphore(0)
    loop = asyncio.get_running_loop()

    def counts() -> None:
        loop.call_soon_threadsafe(called.release)

    checks = HealthChecks([provider("a", counts)], Told(), period=0.01)
    running = asyncio.create_task(checks.run())
    async with asyncio.timeout(20):
        for _ in range(3):
            await called.acquire()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_without_checks_nothing_runs():
    await HealthChecks([provider("a", None)], Told()).run()


def asks_for_a_url(url: str) -> None: ...


@pytest.mark.parametrize("bad", [asks_for_a_url, "http://localhost/status"])
def test_a_check_that_cannot_be_called_is_refused(bad: Any):
    with pytest.raises(TypeError, match="a health check that is called without arguments"):
        provider("a", bad)
