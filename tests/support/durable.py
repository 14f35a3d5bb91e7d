"""A server set up as a test of durability needs it, and a client on it that offers one flow."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

from resolute.client import Client
from resolute.store.connection import Command
from resolute.store.proofs import HONEST
from resolute.store.store import Store
from resolute.testing.server import EmbeddedServer
from tests.support.flows import chain
from tests.support.stage import Stage

FLOW = chain("a", "b")


@dataclass
class Scene:
    """A stage, and a client under test whose connections are its own."""

    stage: Stage
    client: Client

    async def run_ids(self) -> set[str]:
        return {run.id for run in await self.client.list(limit=100_000)}

    async def waits(self) -> int:
        """How many waits there have been: the marks in the stats."""
        return (await self.stage.stats()).get("waits", 0)


@contextlib.asynccontextmanager
async def scene(
    server: EmbeddedServer, *settings: Command, url: str = "", **options: Any
) -> AsyncGenerator[Scene]:
    """A namespace on `server` where FLOW is offered; `settings` are commands sent before."""
    store = await Store.open(server.url, "durable", patience=5.0)
    try:
        for command in settings:
            await store.execute(*command)
        stage = Stage(store)
        await stage.offer(FLOW)
        async with Client.connect(url or server.url, namespace="durable", **options) as client:
            yield Scene(stage, client)
    finally:
        await store.close()


def is_honest(server: EmbeddedServer) -> bool:
    """Whether WAITAOF of this server is believed under everysec."""
    binary = server.binary
    return binary.name in HONEST and binary.release >= HONEST[binary.name]


def set_to(name: str, value: str) -> Command:
    return ("CONFIG", "SET", name, value)


ALWAYS = set_to("appendfsync", "always")
EVERYSEC = set_to("appendfsync", "everysec")
