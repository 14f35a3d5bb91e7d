"""The real thing for a test: a coordinator and a worker on an embedded server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from resolute.client import Client
from resolute.errors import ConfigurationError
from resolute.model.flow import Flow
from resolute.store import registry
from resolute.store.store import DEFAULT_NAMESPACE, Store
from resolute.testing.server import LAUNCH

QUEUE = "test"
PATIENCE = 60.0  # s until a process that was started must be there
GRACE = 5.0  # s that nodes get to finish when the test is over
KILL_AFTER = 20.0  # s

T = TypeVar("T")


class TestServer:
    """Where the server of a test is."""

    __test__ = False  # pytest would take it for a class of tests

    def __init__(self, url: str) -> None:
        self.url = url
        self.namespace = DEFAULT_NAMESPACE

    def __repr__(self) -> str:
        return f"<server at {self.url}>"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which clients, daemons and the command line find it."""
        return {"RESOLUTE_REDIS": self.url, "RESOLUTE_NAMESPACE": self.namespace}

    def flush(self) -> None:
        """Delete everything."""
        _run(_flush(self.url))


class Stand:
    """The processes of one test. Called, it starts a coordinator and a worker of an app."""

    def __init__(self, server: TestServer, folder: Path, module: Path) -> None:
        self._server = server
        self._folder = folder
        self._module = module
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __call__(
        self,
        *apps: Flow[Any, Any] | str,
        queue: str = QUEUE,
        processes: int = 1,
        concurrency: int = 100,
    ) -> TestServer:
        """Start a worker, with the first one a coordinator, and wait until the flows are offered.

        `apps` are flows that the test's own module has as module-level names, or an app as the flag
        `--app` of `resolute-worker` takes it. Raises ConfigurationError where they do not start.
        """
        names, app = _choose(apps, self._module)
        if not self._processes:
            self._spawn("resolute-coord", "resolute.coordinator.main")
        worker = self._spawn(
            "resolute-worker", "resolute_worker.main", "--queue", queue, "--app", app,
            "--processes", str(processes), "--concurrency", str(concurrency),
            "--grace", f"{GRACE}s",
        )  # fmt: skip
        _run(self._wait_until_offered(names, queue, worker))
        return self._server

    def stop(self) -> None:
        """End everything that was started."""
        for process in self._processes.values():
            process.terminate()
        deadline = time.monotonic() + KILL_AFTER
        for process in self._processes.values():
            _end(process, max(0.0, deadline - time.monotonic()))
        self._processes.clear()

    def _spawn(self, name: str, module: str, *flags: str) -> str:
        key = f"{name}-{len(self._processes)}"
        program = f"from {module} import main; main()"
        with self._log(key).open("wb") as log:
            self._processes[key] = subprocess.Popen(
                ["/bin/sh", "-c", LAUNCH, "sh", sys.executable, "-c", program, *flags],
                env={
                    **os.environ,
                    **self._server.environment,
                    "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
                },
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return key

    async def _wait_until_offered(self, names: list[str], queue: str, worker: str) -> None:
        give_up = time.monotonic() + PATIENCE
        async with Client.connect(self._server.url, namespace=self._server.namespace) as client:
            while not await _is_offered(client, names, queue):
                self._check(worker, is_late=time.monotonic() > give_up)
                await asyncio.sleep(0.02)  # between looks at other processes

    def _check(self, worker: str, *, is_late: bool) -> None:
        for name, process in self._processes.items():
            if process.poll() is not None:
                code = process.returncode
                raise ConfigurationError(f"{name} ended with {code}:\n{self._log_of(name)}")
        if is_late:
            raise ConfigurationError(
                f"{worker} does not offer its flows after {PATIENCE:g} s:\n{self._log_of(worker)}"
            )

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _log_of(self, name: str) -> str:
        lines = self._log(name).read_text("utf-8", "replace").splitlines()
        return "\n".join(lines[-20:])


def _end(process: subprocess.Popen[bytes], patience: float) -> None:
    """Wait for a process that was asked to end; kill it if it does not."""
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.write(b"\n")  # sends the reader of LAUNCH home
            process.stdin.close()


def _choose(apps: tuple[Flow[Any, Any] | str, ...], module: Path) -> tuple[list[str], str]:
    """The names of the flows to wait for (none: whatever comes), and the app that has them."""
    names = [app.name for app in apps if isinstance(app, Flow)]
    texts = [app for app in apps if isinstance(app, str)]
    if len(texts) == len(apps) == 1:
        return [], texts[0]
    if texts or not names:
        raise ConfigurationError("resolute_worker: expected flows of the test's module, or one app")
    return names, str(module)


async def _is_offered(client: Client, names: list[str], queue: str) -> bool:
    """Whether a worker of that queue is there. Raises ConfigurationError where it lacks a flow."""
    workers = [
        process
        for process in (await registry.processes(client.store)).values()
        if process.kind == "worker" and process.queue == queue and process.flows
    ]
    offered = {name for process in workers for name in process.flows}
    missing = sorted(set(names) - offered)
    if workers and missing:
        raise ConfigurationError(
            f"resolute_worker: flow {missing[0]!r} is no module-level name of the test's module;"
            f" there: {', '.join(sorted(offered))}"
        )
    return bool(workers)


async def _flush(url: str) -> None:
    store = await Store.open(url, only_look=True)
    try:
        await store.execute("FLUSHALL")
    finally:
        await store.close()


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end, also where a test's loop is running."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
