"""The program `resolute-coord`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator

import click
import uvloop

from resolute import __version__
from resolute.client import Client
from resolute.coordinator.coordinator import Coordinator
from resolute.daemon import Daemon, daemon_options, run_daemon
from resolute.options import ADDRESS, DURATION
from resolute.store import server
from resolute.store.store import Store

log = logging.getLogger(__name__)

HTTP_PATIENCE = 5.0  # s that a request waits for a Redis that is away


@click.command(
    context_settings={
        "auto_envvar_prefix": "RESOLUTE",
        "show_default": True,
        "help_option_names": ["-h", "--help"],
    }
)
@click.version_option(__version__, package_name="resolute")
@daemon_options
@click.option("--retention", type=DURATION, default="24h", help="Keep ended runs for so long.")
@click.option(
    "--partitions",
    type=click.IntRange(1, 1024),
    default=None,
    help="Partitions of a namespace that is used for the first time.  [default: 1]",
)
@click.option(
    "--http", type=ADDRESS, default=None, help="Serve webhooks and signals, such as 127.0.0.1:8080."
)
def main(
    daemon: Daemon, retention: float, partitions: int | None, http: tuple[str, int] | None
) -> None:
    """Move the runs of a namespace along. Start any number, anywhere."""

    async def serve() -> None:
        store = await Store.open(
            daemon.redis,
            daemon.namespace,
            name="resolute-coord",
            patience=float("inf"),
            partitions=partitions,
        )
        try:
            await server.check(store, allow_eviction=daemon.allow_eviction)
            coordinator = Coordinator(
                store, lease=daemon.lease, retention=retention, storage=daemon.storage
            )
            async with contextlib.AsyncExitStack() as stack:
                if http is not None:
                    await stack.enter_async_context(_serving(http, daemon))
                await daemon.serve(
                    coordinator.run(), lambda: coordinator.is_ready and store.is_connected
                )
        finally:
            await store.close()

    run_daemon(serve, uvloop.run)


@contextlib.asynccontextmanager
async def _serving(http: tuple[str, int], daemon: Daemon) -> AsyncGenerator[None]:
    """HTTP, with a client of its own: a request is answered soon, or with an error."""
    from resolute.web.server import serve_http  # only who serves needs the web's libraries

    async with (
        Client.connect(
            daemon.redis,
            namespace=daemon.namespace,
            patience=HTTP_PATIENCE,
            storage=daemon.storage,
        ) as client,
        serve_http(*http, client) as port,
    ):
        log.info("serving HTTP on %s:%d", http[0], port)
        yield
