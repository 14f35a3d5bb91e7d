"""The program `resolute-worker`."""

from __future__ import annotations

import click
import uvloop

from resolute import __version__
from resolute.daemon import Daemon, daemon_options, run_daemon
from resolute.errors import ConfigurationError
from resolute.ids import check_queue
from resolute.options import DURATION
from resolute_worker.supervisor import WorkerConfig
from resolute_worker.worker import serve


@click.command(
    context_settings={
        "auto_envvar_prefix": "RESOLUTE",
        "show_default": True,
        "help_option_names": ["-h", "--help"],
    }
)
@click.version_option(__version__, package_name="resolute")
@click.option("--queue", required=True, help="The queue whose nodes are run.")
@click.option("--app", required=True, help="MODULE, MODULE:ATTRIBUTE or PATH.py with the flows.")
@click.option("--processes", type=click.IntRange(1, 1024), default=1, help="Worker processes.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 10_000),
    default=100,
    help="Nodes that a process runs at once.",
)
@click.option("--grace", type=DURATION, default="30s", help="What running nodes get at SIGTERM.")
@click.option(
    "--kill-grace",
    type=DURATION,
    default="2s",
    help="What a node gets beyond its timeout before its process is replaced.",
)
@daemon_options
def main(
    daemon: Daemon,
    queue: str,
    app: str,
    processes: int,
    concurrency: int,
    grace: float,
    kill_grace: float,
) -> None:
    """Run the nodes of the flows in APP. Start any number, anywhere."""

    async def run() -> None:
        try:
            check_queue(queue)
        except ValueError as error:
            raise ConfigurationError(str(error)) from None
        config = WorkerConfig(
            redis=daemon.redis,
            namespace=daemon.namespace,
            queue=queue,
            app=app,
            processes=processes,
            concurrency=concurrency,
            lease=daemon.lease,
            grace=grace,
            kill_grace=kill_grace,
            log_level=daemon.log_level,
            storage=daemon.storage.told() if daemon.storage is not None else "",
        )
        await serve(daemon, config)

    run_daemon(run, uvloop.run)
