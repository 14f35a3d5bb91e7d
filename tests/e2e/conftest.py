"""Fixtures of the end-to-end tests: servers, and systems of real processes on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resolute.testing.server import EmbeddedServer, ServerBinary, find_servers
from tests.support.system import System, systems

SERVERS = find_servers()


@pytest.fixture(params=SERVERS, ids=[f"{s.name}-{s.version}" for s in SERVERS])
def binary(request: pytest.FixtureRequest) -> ServerBinary:
    return request.param


@pytest.fixture
def one_binary() -> ServerBinary:
    """For tests of Resolute's processes rather than of the server: the newest there is."""
    return SERVERS[0]


@pytest.fixture
def make_system(tmp_path: Path) -> Iterator[Callable[..., System]]:
    with systems(tmp_path) as started:

        def make(binary: ServerBinary, *, partitions: int = 1, **options: Any) -> System:
            server = EmbeddedServer(tmp_path / "server", binary=binary, **options)
            return started(server, partitions)

        yield make


@pytest.fixture
def system(make_system: Callable[..., System], one_binary: ServerBinary) -> System:
    """A coordinator and a worker of two processes, on the newest server."""
    made = make_system(one_binary)
    made.coordinator()
    made.worker("--processes", "2", "--kill-grace", "0.3")
    return made
