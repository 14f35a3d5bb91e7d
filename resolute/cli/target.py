"""Where a command goes: the server and the namespace, from flags, variables or `resolute dev`."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import wraps
from typing import Any, TypeVar

import click
import msgspec

from resolute.client import Client
from resolute.client.dev_server import SERVER_FILE, DevServer
from resolute.errors import ConfigurationError, StoreError, StoreUnavailable
from resolute.storage import storage_of
from resolute.store.connection import Address, Link, ServerReply
from resolute.store.keys import Keys
from resolute.store.store import DEFAULT_NAMESPACE, DEFAULT_URL, Store

T = TypeVar("T")

PATIENCE = 5.0  # s a command outlasts a Redis that is away


class Target(msgspec.Struct, frozen=True):
    """A server and a namespace; `is_dev` where they were found in SERVER_FILE."""

    redis: str
    namespace: str
    is_dev: bool = False
    storage: str | None = None

    @classmethod
    def choose(cls, redis: str | None, namespace: str | None, storage: str | None = None) -> Target:
        """What was asked for, else what `resolute dev` left here, else the defaults."""
        dev = DevServer.read() if redis is None else None
        if dev is not None:
            return cls(dev.redis, namespace or dev.namespace, True, storage or dev.storage)
        return cls(redis or DEFAULT_URL, namespace or DEFAULT_NAMESPACE, storage=storage)

    def run(self, work: Callable[[Client], Awaitable[T]]) -> T:
        """Run `work` with a connected client. Raises what it does, and what `connect` does."""

        async def connected() -> T:
            async with self.connect() as client:
                return await work(client)

        return asyncio.run(connected())

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncGenerator[Client]:
        """A client for as long as the `async with` lasts.

        Raises StoreUnavailable, StoreError, and ConfigurationError for a namespace that nobody has
        used, or an unusable storage.
        """
        storage = storage_of(self.storage)
        async with self.link() as link:
            store = Store(link, Keys(self.namespace, 1), PATIENCE)
            try:
                is_used = await store.find_partitions()
            except ServerReply as error:
                raise StoreError(f"{link.address}: {error}") from error
            if not is_used:
                raise ConfigurationError(
                    f"{link.address}: no worker or coordinator has ever used namespace"
                    f" {self.namespace!r}"
                )
            client = Client(store, storage=storage)
            try:
                yield client
            finally:
                await client.close()

    @contextlib.asynccontextmanager
    async def link(self) -> AsyncGenerator[Link]:
        """A connection to the server, whatever is on it. Raises StoreUnavailable."""
        link = Link(Address(self.redis), name="resolute-cli")
        try:
            await link.connection()
            yield link
        except StoreUnavailable as error:
            if self.is_dev and not link.generation:
                hint = f"{error} (from {SERVER_FILE}: does `resolute dev` still run?)"
                raise StoreUnavailable(hint) from error
            raise
        finally:
            await link.close()


def target_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--redis`, `--namespace` and `--storage`, given to the command as `target`."""

    @click.option(
        "--redis",
        envvar="RESOLUTE_REDIS",
        metavar="URL",
        help=f"Redis or Valkey; by default what `resolute dev` runs here, else {DEFAULT_URL}.",
    )
    @click.option(
        "--namespace",
        envvar="RESOLUTE_NAMESPACE",
        metavar="NAME",
        help=f"Prefix of all keys.  [default: {DEFAULT_NAMESPACE}]",
    )
    @click.option(
        "--storage",
        envvar="RESOLUTE_STORAGE",
        metavar="URL",
        help="Where values above the limit are; by default what `resolute dev` has here.",
    )
    @wraps(command)
    def with_target(
        *args: Any, redis: str | None, namespace: str | None, storage: str | None, **others: Any
    ) -> Any:
        return command(*args, target=Target.choose(redis, namespace, storage), **others)

    return with_target


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
