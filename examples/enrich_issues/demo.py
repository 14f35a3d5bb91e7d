"""The whole example in one command: services, Redis, coordinator, worker, flows, and a check.

    python -m examples.enrich_issues.demo
    python -m examples.enrich_issues.demo --data issues.json.gz --copies 10
    python -m examples.enrich_issues.demo --keep

Exits 1 when a run failed, a row is not what the archive says, or a service had to refuse a call.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Coroutine, Generator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
import httpx
import msgspec
from rich.console import Console
from rich.progress import Progress

from examples.enrich_issues import settings
from examples.enrich_issues.archive import SAMPLE, Archive, expected_rows, load_or_refuse
from examples.enrich_issues.flows import (
    AllIssuesInput,
    IssueInput,
    enrich_all_issues,
    enrich_issue,
)
from examples.enrich_issues.processes import ProcessDied, Processes, script
from examples.enrich_issues.report import DemoReport, FlowReport, compare_rows
from examples.enrich_issues.runs import StartRuns, run_all
from examples.enrich_issues.screen import give_up, introduce, progress_bars, show, suggest
from examples.enrich_issues.store import IssueStore
from examples.enrich_issues.wire import ServicesReady, ServiceStats
from resolute import Client, FlowRun, ResoluteError
from resolute.testing.server import EmbeddedServer, ServerFailed, ServerNotFound


class Options(msgspec.Struct, frozen=True):
    """What the demo was asked to do; `timeout` in seconds, for all flows together."""

    data: Path
    folder: Path
    copies: int
    processes: int
    latency: str
    error_rate: float
    timeout: float

    @property
    def database(self) -> Path:
        return self.folder / "issues.sqlite"


class Addresses(msgspec.Struct, frozen=True):
    """Where the parts of the running demo are reached."""

    redis: str
    services: str


def start_everything(options: Options, processes: Processes, redis: str) -> Addresses:
    """Start the services, a coordinator and a worker."""
    command = [sys.executable, "-m", "examples.enrich_issues.services", "--data", str(options.data)]
    command += ["--latency", options.latency, "--error-rate", str(options.error_rate)]
    line = processes.start_and_read_line("services", command, {})
    services = msgspec.json.decode(line, type=ServicesReady).url

    processes.start("coordinator", [script("resolute-coord"), "--redis", redis], {})

    worker = [script("resolute-worker"), "--redis", redis, "--queue", settings.QUEUE]
    worker += ["--app", "examples.enrich_issues.flows", "--processes", str(options.processes)]
    where = {settings.SERVICES_URL: services, settings.DATABASE: str(options.database.resolve())}
    processes.start("worker", worker, where)
    return Addresses(redis, services)


class Demo:
    """Runs both flows over the archive, one after the other, and checks the rows of each."""

    def __init__(self, options: Options, archive: Archive, store: IssueStore) -> None:
        self._options = options
        self._store = store
        self._expected = expected_rows(archive)
        # A run id is used once; the server may be one that has seen the demo before.
        self._label = f"demo-{datetime.now():%Y%m%d-%H%M%S}-{os.getpid()}"

    async def run(self, addresses: Addresses, progress: Progress) -> DemoReport:
        async with Client.connect(addresses.redis) as client:
            flows = (
                await self._flow(
                    "enrich-issue", lambda: self._start_one_each(client), progress, self._runs
                ),
                await self._flow(
                    "enrich-all-issues", lambda: self._start_one_for_all(client), progress, 1
                ),
            )
        async with httpx.AsyncClient(base_url=addresses.services, trust_env=False) as http:
            stats = (await http.get("/stats")).raise_for_status().content
        return DemoReport(
            flows=flows,
            services=msgspec.json.decode(stats, type=dict[str, ServiceStats]),
            rows=len(self._expected),
            database=self._options.database,
        )

    @property
    def _runs(self) -> int:
        return len(self._expected) * self._options.copies

    async def _flow(self, flow: str, start: StartRuns, progress: Progress, runs: int) -> FlowReport:
        self._store.clear()
        task = progress.add_task(flow, total=runs)
        report = await run_all(flow, start, lambda: progress.advance(task))
        wrong = compare_rows(self._store.rows(), self._expected)
        problems = (*report.problems, *(f"{flow}: {problem}" for problem in wrong))
        return msgspec.structs.replace(report, problems=problems)

    async def _start_one_each(self, client: Client) -> Sequence[FlowRun[Any]]:
        copies = range(1, self._options.copies + 1)
        return await client.start_many(
            enrich_issue,
            [IssueInput(number) for number in self._expected for _ in copies],
            ids=[f"{self._label}-issue-{n}-{copy}" for n in self._expected for copy in copies],
        )

    async def _start_one_for_all(self, client: Client) -> Sequence[FlowRun[Any]]:
        run = await client.start(enrich_all_issues, AllIssuesInput(), id=f"{self._label}-all")
        return [run]


async def while_alive(
    work: Coroutine[Any, Any, DemoReport], processes: Processes, timeout: float
) -> DemoReport:
    """The result of `work`. Raises ProcessDied as soon as a subprocess ends, or TimeoutError."""
    task = asyncio.ensure_future(work)
    try:
        async with asyncio.timeout(timeout):
            while not task.done():
                processes.check()
                await asyncio.wait([task], timeout=0.2)
        return await task
    finally:
        task.cancel()


def run_demo(
    options: Options, archive: Archive, processes: Processes, redis: str, console: Console
) -> tuple[DemoReport, Addresses]:
    addresses = start_everything(options, processes, redis)
    store = IssueStore(options.database)
    try:
        with progress_bars(console) as progress:
            work = Demo(options, archive, store).run(addresses, progress)
            return asyncio.run(while_alive(work, processes, options.timeout)), addresses
    finally:
        store.close()


def wait_for_ctrl_c(processes: Processes, console: Console) -> None:
    console.print("\n  [dim]All of it keeps running until Ctrl-C.[/]")
    try:
        while True:
            processes.check()
            time.sleep(0.5)
    except KeyboardInterrupt:
        console.print()


@contextmanager
def embedded_server() -> Generator[EmbeddedServer]:
    """A server of the demo's own; it forgets everything at the end."""
    with (
        tempfile.TemporaryDirectory(prefix="resolute-") as folder,
        EmbeddedServer(Path(folder)) as server,
    ):
        yield server


def exit_on(*signals: signal.Signals) -> None:
    """Let these end the demo as an exception does, so that it stops its subprocesses."""

    def leave(number: int, _frame: FrameType | None) -> NoReturn:
        sys.exit(128 + number)

    for number in signals:
        signal.signal(number, leave)


@click.command()
@click.option(
    "--data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    default=SAMPLE,
    help="Archive to enrich, .json or .json.gz.  [default: the sample]",
)
@click.option("--redis", metavar="URL", help="A server of yours.  [default: one of its own]")
@click.option("--copies", type=click.IntRange(1), default=1, show_default=True, help="Per issue.")
@click.option("--processes", type=click.IntRange(1), default=2, show_default=True)
@click.option("--latency", default="20ms", show_default=True, help="Of each service.")
@click.option("--error-rate", type=click.FloatRange(0, 1), default=0.02, show_default=True)
@click.option("--timeout", default=600.0, show_default=True, help="Seconds for all flows.")
@click.option("--keep", is_flag=True, help="Keep everything running at the end, until Ctrl-C.")
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".resolute/enrich-issues"),
    show_default=True,
    help="For the SQLite file and the logs.",
)
def main(
    data: Path,
    redis: str | None,
    copies: int,
    processes: int,
    latency: str,
    error_rate: float,
    timeout: float,
    keep: bool,
    folder: Path,
) -> None:
    """Enrich every issue of an archive, and check every row."""
    console = Console()
    exit_on(signal.SIGTERM, signal.SIGHUP)
    archive = load_or_refuse(data)
    options = Options(data, folder, copies, processes, latency, error_rate, timeout)
    folder.mkdir(parents=True, exist_ok=True)
    introduce(archive, latency, error_rate, console)
    try:
        with ExitStack() as stack:
            # Left in reverse: the worker and the coordinator end before the server they talk to.
            server = redis or stack.enter_context(embedded_server()).url
            subprocesses = stack.enter_context(Processes(folder))
            report, addresses = run_demo(options, archive, subprocesses, server, console)
            show(report, console)
            suggest(addresses.redis if keep or redis else None, console)
            if keep:
                wait_for_ctrl_c(subprocesses, console)
    except (ProcessDied, ServerFailed, ServerNotFound, ResoluteError, httpx.HTTPError) as error:
        give_up(str(error), console)
        sys.exit(1)
    except TimeoutError:
        give_up(f"not done after {timeout:.0f} s; the logs are in {folder}", console)
        sys.exit(1)
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
