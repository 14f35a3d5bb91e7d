"""The pytest plugin: `flow_tester`, `resolute_server`, `resolute_worker`.

pytest loads this in every session of every project that has Resolute installed. So it imports
nothing of ours, and nothing that does I/O, until a test asks for a fixture. The fixtures are plain
ones, so that they work in plain tests, with pytest-asyncio in both modes, and with anyio.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from resolute.testing import FlowTester
    from resolute.testing.server import EmbeddedServer
    from resolute.testing.stand import Stand, TestServer


@pytest.fixture
def flow_tester() -> FlowTester:
    """A FlowTester: runs a flow in memory and virtual time."""
    from resolute.testing import FlowTester

    return FlowTester()


@pytest.fixture(scope="session")
def resolute_embedded_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """The server program that the tests of a session share; a test uses `resolute_server`."""
    from resolute.testing.server import EmbeddedServer

    folder = tmp_path_factory.mktemp("resolute-server")
    with EmbeddedServer(folder, appendfsync="no") as server:
        yield server


@pytest.fixture
def resolute_server(
    resolute_embedded_server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> TestServer:
    """A real server, empty at the start of each test, which `Client.connect()` finds by itself."""
    from resolute.testing.stand import TestServer

    server = TestServer(resolute_embedded_server.url)
    server.flush()
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    return server


@pytest.fixture
def resolute_worker(
    resolute_server: TestServer,
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Stand]:
    """Starts a coordinator and a worker on `resolute_server`; they end with the test.

    Called with flows of the test's module, ``resolute_worker(flow)``, or with an app as
    `resolute-worker --app` takes it: ``resolute_worker("shop.flows")``.
    """
    from resolute.testing.stand import Stand

    folder = tmp_path_factory.mktemp("resolute-worker")
    with Stand(resolute_server, folder, request.path) as stand:
        yield stand
