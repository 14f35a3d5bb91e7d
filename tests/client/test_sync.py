"""The client for code without a loop: what it adds to the other one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from resolute.client.dev_server import DEV_FOLDER, DevServer
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


def test_without_a_url_a_client_finds_what_dev_runs_in_this_folder(
    stage: Stage,
    store: Store,
    server: EmbeddedServer,
    runner: asyncio.Runner,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    for name in ("RESOLUTE_REDIS", "RESOLUTE_NAMESPACE"):
        monkeypatch.delenv(name, raising=False)
    DEV_FOLDER.mkdir()
    DevServer(server.url, store.keys.meta.namespace, 1).write()
    runner.run(stage.begin_run(chain("a", flow="f"), "here"))
    with Client() as client:
        assert [found.id for found in client.list()] == ["here"]
