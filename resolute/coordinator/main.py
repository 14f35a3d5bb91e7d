"""The program `resolute-coord`."""

from __future__ import annotations

import click
import uvloop

from resolute.coordinator.coordinator import Coordinator
from resolute.daemon import Daemon, daemon_options, run_daemon
from resolute.options import DURATION
from resolute.store import server
from resolute.store.store import Store


@click.command(context_settings={"auto_envvar_prefix": "RESOLUTE", "show_default": True})
@daemon_options
@click.option("--retention", type=DURATION, default="24h", help="Keep ended runs for so long.")
@click.option(
    "--partitions",
    type=click.IntRange(1, 1024),
    default=None,
    help="Partitions of a namespace that is used for the first time.  [default: 1]",
)
def main(daemon: Daemon, retention: float, partitions: int | None) -> None:
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
            await server.check(store.link, allow_eviction=daemon.allow_eviction)
            coordinator = Coordinator(store, lease=daemon.lease, retention=retention)
            await daemon.serve(
                coordinator.run(), lambda: coordinator.is_ready and store.is_connected
            )
        finally:
            await store.close()

    run_daemon(serve, uvloop.run)
