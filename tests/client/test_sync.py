"""The client for code without a loop: what it adds to the other one."""

from __future__ import annotations

import asyncio

import pytest

from resolute.store.store import Store
from resolute.sync import Client
from resolute.testing.server import EmbeddedServer
from tests.support.flows import chain
from tests.support.stage import Stage


def test_a_client_that_is_closed_says_so(
    stage: Stage, store: Store, server: EmbeddedServer, runner: asyncio.Runner
):
    runner.run(stage.offer(chain("a", flow="f")))
    with Client.connect(server.url, namespace=store.keys.meta.namespace) as client:
        run = client.start("f", id="one")
        assert run.costs() == {}
        assert [found.id for found in client.list()] == ["one"]
        assert client.rerun("one", id="two").id == "two"
    client.close()  # once more does nothing
    for call in (client.list, run.status, run.peek, run.wait):
        with pytest.raises(RuntimeError, match="this client is closed"):
            call()
