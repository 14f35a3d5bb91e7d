"""What every test may use: coroutine tests, real servers, a fresh namespace, a look for leaks.

A test written as `async def` runs on the loop of the `runner` fixture, on which its fixtures were
made too. A test that uses `store` has a namespace of its own; when it has passed, everything it
started is ended, taken away by the retention, and what is left must be nothing but configuration.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Generator, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import settings

from resolute.ids import random_text
from resolute.store.store import Store
from resolute.testing.server import EmbeddedServer, ServerBinary, find_servers
from tests.support.examples import USUAL
from tests.support.keyspace import erase
from tests.support.leaks import find_leaks
from tests.support.stage import Stage

settings.register_profile("usual", max_examples=USUAL, deadline=None)  # machines are busy
settings.register_profile("deep", max_examples=20 * USUAL, deadline=None)
settings.load_profile("usual")

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]

LEAVES_KEYS = "leaves_keys"
_passed = pytest.StashKey[bool]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", f"{LEAVES_KEYS}(reason): what this test leaves in Redis is not looked at"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(collector: Any, name: str, obj: object) -> None:
    if inspect.iscoroutinefunction(obj) and collector.istestfunction(obj, name):
        pytest.mark.usefixtures("runner")(obj)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    test: Any = pyfuncitem.obj
    if not inspect.iscoroutinefunction(test):
        return None
    values: dict[str, Any] = pyfuncitem.funcargs
    arguments = {name: values[name] for name in inspect.signature(test).parameters}
    values["runner"].run(test(**arguments))
    return True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if call.when == "call":
        item.stash[_passed] = report.passed
    return report


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """One event loop for a test and its fixtures."""
    with asyncio.Runner() as running:
        yield running


@pytest.fixture
def run(runner: asyncio.Runner) -> Run[Any]:
    """Runs a coroutine on the test's loop, for tests that are no coroutines themselves."""
    return runner.run


def _server_name(binary: ServerBinary) -> str:
    return f"{binary.name}-{'.'.join(binary.version.split('.')[:2])}"


@pytest.fixture(scope="session", params=find_servers(), ids=_server_name)
def server_binary(request: pytest.FixtureRequest) -> ServerBinary:
    """Each server program of this machine."""
    return request.param


@pytest.fixture(scope="session")
def server(
    server_binary: ServerBinary, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer]:
    """A server shared by all tests; a test that breaks it uses `own_server`."""
    directory = tmp_path_factory.mktemp(server_binary.name)
    with EmbeddedServer(directory, binary=server_binary, appendfsync="no") as running:
        yield running


@pytest.fixture
def own_server(server_binary: ServerBinary, tmp_path: Path) -> Iterator[EmbeddedServer]:
    """A server for this test alone, to be stopped, killed or set up differently."""
    with EmbeddedServer(tmp_path / "server", binary=server_binary) as running:
        yield running


@pytest.fixture(params=[1, 3], ids=lambda count: f"P{count}")
def partitions(request: pytest.FixtureRequest) -> int:
    """How many partitions the namespace has."""
    return request.param


@pytest.fixture
def store(
    server: EmbeddedServer, partitions: int, runner: asyncio.Runner, request: pytest.FixtureRequest
) -> Iterator[Store]:
    """A store with a namespace of its own. A test that passed must leave nothing behind in it."""
    opened = runner.run(
        Store.open(server.url, f"t-{random_text(8)}", partitions=partitions, patience=5.0)
    )
    marker = request.node.get_closest_marker(LEAVES_KEYS)
    if marker is not None and not (marker.args and isinstance(marker.args[0], str)):
        raise pytest.UsageError(f"{request.node.nodeid}: {LEAVES_KEYS} needs its reason")
    try:
        yield opened
        if marker is None and request.node.stash.get(_passed, False):
            leaks = runner.run(find_leaks(opened))
            assert not leaks, "the test left behind:\n  " + "\n  ".join(leaks)
    finally:
        runner.run(erase(opened))
        runner.run(opened.close())


@pytest.fixture
def stage(store: Store) -> Stage:
    """Hands that play the coordinators and workers of the test's namespace."""
    return Stage(store)
