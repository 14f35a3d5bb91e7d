"""`resolute dev`."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from typing import Any
from urllib.parse import quote

import click
import msgspec

from resolute.cli.dev.children import Child, Say, program, start_child
from resolute.cli.dev.screen import Screen
from resolute.cli.dev.workspace import DATA_FOLDER, STORAGE_FOLDER, workspace
from resolute.cli.exits import Exit, say_error
from resolute.cli.target import Target
from resolute.client.dev_server import DevServer
from resolute.ids import check_queue
from resolute.storage import storage_of
from resolute.store.keys import MetaKeys
from resolute.store.store import DEFAULT_NAMESPACE
from resolute.testing.server import EmbeddedServer

COORDINATOR, WORKER = "coord", "worker"
GRACE = 3.0  # s that running nodes get at Ctrl-C


class DevConfig(msgspec.Struct, frozen=True):
    """What `resolute dev` was told."""

    app: str
    queues: tuple[str, ...]
    processes: int
    concurrency: int
    port: int | None
    namespace: str
    log_level: str
    storage: str


@click.command()
@click.argument("app")
@click.option(
    "--queue", "queues", multiple=True, default=("default",), show_default=True,
    help="Serve this queue; may be given several times.",
)  # fmt: skip
@click.option(
    "--processes", type=click.IntRange(1, 64), default=2, show_default=True, help="For each queue."
)
@click.option(
    "--concurrency", type=click.IntRange(1, 10_000), default=100, show_default=True,
    help="Nodes that a process runs at once.",
)  # fmt: skip
@click.option(
    "--port", type=click.IntRange(1, 65_535), help="Of the server; by default a free one."
)
@click.option(
    "--namespace", envvar="RESOLUTE_NAMESPACE", default=DEFAULT_NAMESPACE, show_default=True,
    help="Prefix of all keys.",
)  # fmt: skip
@click.option(
    "--storage", envvar="RESOLUTE_STORAGE", metavar="URL",
    help="Where values above the limit go; by default a folder in .resolute/.",
)  # fmt: skip
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info",
    show_default=True,
)  # fmt: skip
def dev(
    app: str,
    queues: tuple[str, ...],
    processes: int,
    concurrency: int,
    port: int | None,
    namespace: str,
    storage: str | None,
    log_level: str,
) -> None:
    """Run APP with a server, a coordinator and workers of its own, until Ctrl-C.

    APP is MODULE, MODULE:ATTRIBUTE or PATH.py. The data is kept in .resolute/ of this folder: what
    was running goes on at the next start.
    """
    MetaKeys(namespace)
    for queue in queues:
        try:
            check_queue(queue)
        except ValueError as error:
            raise click.BadParameter(str(error)) from None
    kept = storage or f"file://{quote(str(STORAGE_FOLDER.absolute()))}"
    storage_of(kept)
    names = tuple(dict.fromkeys(queues))
    config = DevConfig(app, names, processes, concurrency, port, namespace, log_level, kept)
    with workspace():
        sys.exit(asyncio.run(_Session(config).run()))


class _Session:
    """From the start of the server to its end."""

    def __init__(self, config: DevConfig) -> None:
        self._config = config
        self._stop = asyncio.Event()
        self._interrupts = 0
        self._children: list[Child] = []
        self._screen = Screen(time.time(), config.processes * len(config.queues))

    async def run(self) -> int:
        """Serve until a signal or the end of a child; the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt)
        server = EmbeddedServer(DATA_FOLDER, port=self._config.port)
        try:
            await asyncio.to_thread(server.start)
            config = self._config
            DevServer(server.url, config.namespace, os.getpid(), config.storage).write()
            version = f"{server.binary.name} {server.binary.version}"
            self._screen.say("dev", f"{version} on {server.url}, data in {DATA_FOLDER}")
            return await self._serve(server)
        finally:
            await asyncio.to_thread(server.stop)

    def _interrupt(self) -> None:
        """The first time ask, the second time kill."""
        self._interrupts += 1
        self._stop.set()
        if self._interrupts > 1:
            for child in self._children:
                child.kill()

    async def _serve(self, server: EmbeddedServer) -> int:
        target = Target(server.url, self._config.namespace)
        stopping = asyncio.create_task(self._stop.wait())
        watching = asyncio.create_task(self._watch_server(server))
        drawing = asyncio.create_task(self._screen.run(target))
        ends: dict[asyncio.Task[int], Child] = {}
        try:
            await self._start_children(target)
            ends = {asyncio.create_task(child.wait()): child for child in self._children}
            waiting = {stopping, watching, drawing, *ends}
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            return Exit.OK if stopping in done else self._explain(done, ends)
        finally:
            for task in (stopping, watching, drawing, *ends):
                task.cancel()
            await asyncio.gather(stopping, watching, drawing, *ends, return_exceptions=True)
            self._screen.say("dev", "stopping")
            await self._stop_children()

    async def _start_children(self, target: Target) -> None:
        config = self._config
        env = {
            "RESOLUTE_REDIS": target.redis,
            "RESOLUTE_NAMESPACE": target.namespace,
            "RESOLUTE_STORAGE": config.storage,
        }
        level = ("--log-level", config.log_level)
        say: Say = self._screen.say
        coordinator = [*program("resolute-coord", "resolute.coordinator.main"), *level]
        self._children.append(await start_child(COORDINATOR, coordinator, env, say))
        for queue in config.queues:
            worker = [
                *program("resolute-worker", "resolute_worker.main"), *level,
                "--app", config.app, "--queue", queue, "--grace", f"{GRACE}s",
                "--processes", str(config.processes), "--concurrency", str(config.concurrency),
            ]  # fmt: skip
            self._children.append(await start_child(WORKER, worker, env, say))

    async def _stop_children(self) -> None:
        """Workers first: a coordinator takes back what they leave, and both need the server."""
        workers = [child for child in self._children if child.name == WORKER]
        await asyncio.gather(*(child.stop(GRACE) for child in workers))
        for child in self._children:
            await child.stop(GRACE)

    async def _watch_server(self, server: EmbeddedServer) -> None:
        while server.running:  # noqa: ASYNC110 - it is a process, nobody sets an event
            await asyncio.sleep(0.5)

    def _explain(self, done: set[asyncio.Task[Any]], ends: dict[asyncio.Task[int], Child]) -> int:
        """Say why we end without being asked; the exit code."""
        for task, child in ends.items():
            if task in done:
                code = task.result()
                say_error(f"the {child.name} ended with code {code}")
                return code if code > 0 else Exit.FAILED
        for task in done:
            if task.exception() is not None:
                task.result()
        say_error(f"the server ended; its log is in {DATA_FOLDER}")
        return Exit.FAILED
