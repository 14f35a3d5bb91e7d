"""What both daemons share: flags, logging, signals, systemd, health, exit codes.

Exit codes: 0 ended as asked, 1 failed, 2 unusable flags or an unsuitable server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

import click
import msgspec

from resolute.errors import ConfigurationError, ResoluteError, StoreUnavailable
from resolute.options import ADDRESS, DURATION
from resolute.storage import DEFAULT_MAX_STORED, Storage, storage_of
from resolute.web.health import serve_health

log = logging.getLogger(__name__)

EXIT_FAILED = 1
EXIT_UNUSABLE = 2


class Daemon(msgspec.Struct, frozen=True):
    """The flags of both daemons; `lease` is in seconds."""

    redis: str
    namespace: str
    lease: float
    health: tuple[str, int] | None = None
    log_level: str = "info"
    allow_eviction: bool = False
    storage: Storage | None = None

    async def serve(self, work: Coroutine[Any, Any, None], is_ready: Callable[[], bool]) -> None:
        """Run `work` until it ends or a signal cancels it, with health and systemd told."""
        task = asyncio.create_task(work)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        async with contextlib.AsyncExitStack() as stack:
            if self.health is not None:
                await stack.enter_async_context(serve_health(*self.health, is_ready))
            watcher = asyncio.create_task(_tell_systemd(is_ready))
            try:
                await task
            except asyncio.CancelledError:
                log.info("stopped as asked")
            finally:
                _notify("STOPPING=1")
                watcher.cancel()


def daemon_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The flags that both daemons take, given to the command as `daemon`."""

    @click.option("--redis", default="redis://localhost:6379/0", help="URL of Redis or Valkey.")
    @click.option("--namespace", default="resolute", help="Prefix of all keys.")
    @click.option(
        "--lease", type=DURATION, default="15s", help="A process silent for so long is dead."
    )
    @click.option("--health", type=ADDRESS, default=None, help="Serve /health/live and /ready.")
    @click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        default="info",
    )
    @click.option(
        "--allow-eviction", is_flag=True, help="Accept a server that may delete keys when full."
    )
    @storage_options
    @wraps(command)
    def with_daemon(
        *args: Any,
        redis: str,
        namespace: str,
        lease: float,
        health: tuple[str, int] | None,
        log_level: str,
        allow_eviction: bool,
        storage: str | None,
        max_stored: int,
        **others: Any,
    ) -> Any:
        try:
            kept = storage_of(storage, max_stored)
        except ConfigurationError as error:
            click.echo(f"error: {error}", err=True)
            sys.exit(EXIT_UNUSABLE)
        daemon = Daemon(redis, namespace, lease, health, log_level, allow_eviction, kept)
        configure_logging(log_level)
        return command(*args, daemon=daemon, **others)

    return with_daemon


def storage_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--storage` and `--max-stored`."""
    command = click.option(
        "--max-stored",
        envvar="RESOLUTE_MAX_STORED",
        type=click.IntRange(1),
        default=DEFAULT_MAX_STORED,
        show_default="1 GiB",
        metavar="BYTES",
        help="The most that one value in the storage may have.",
    )(command)
    return click.option(
        "--storage",
        envvar="RESOLUTE_STORAGE",
        metavar="URL",
        help="Where values above the limit go: a folder, file:///folder, s3://bucket/prefix…",
    )(command)


def configure_logging(level: str) -> None:
    """Log lines to stderr, with the time where nobody else adds it."""
    under_systemd = "JOURNAL_STREAM" in os.environ
    stamp = "" if under_systemd else "%(asctime)s "
    logging.basicConfig(
        level=level.upper(), format=f"{stamp}%(levelname)s %(name)s: %(message)s", force=True
    )


def run_daemon(
    serve: Callable[[], Coroutine[Any, Any, None]],
    runner: Callable[[Coroutine[Any, Any, None]], Any],
) -> None:
    """Run, and turn what goes wrong into a message and an exit code."""
    try:
        runner(serve())
    except (ConfigurationError, StoreUnavailable) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_UNUSABLE)
    except ResoluteError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(EXIT_FAILED)


def _notify(message: str) -> None:
    """sd_notify(3): tell systemd, where it listens."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.connect(address)
        notify.sendall(message.encode())


async def _tell_systemd(is_ready: Callable[[], bool]) -> None:
    """READY once we are, then WATCHDOG at half the interval that systemd asks for."""
    interval = int(os.environ.get("WATCHDOG_USEC", "0")) / 2_000_000
    told = False
    while True:
        if is_ready():
            _notify("WATCHDOG=1" if told else "READY=1")
            told = True
        await asyncio.sleep(interval if told and interval else 0.2 if not told else 10)
