"""The supervisor: spawns the processes, raises their beats, replaces those that die or hang.

It runs no user code, so that nothing a node does can stop the beats.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import time
from dataclasses import dataclass, field

import msgspec

from resolute.daemon import EXIT_UNUSABLE
from resolute.errors import ConfigurationError, ResoluteError
from resolute.ids import process_name
from resolute.store import registry
from resolute.store.connection import backoff
from resolute.store.store import Store
from resolute_worker.aftermath import settle_killed
from resolute_worker.process import EXIT_STOOD_DOWN, Order, ProcessConfig
from resolute_worker.shared import Overdue, SharedPage

log = logging.getLogger(__name__)

WATCH_PERIOD = 0.2  # s
STABLE = 10.0  # s a process must live before its next death counts as the first


class WorkerConfig(msgspec.Struct, frozen=True):
    """What a worker is told. Spans are in seconds.

    `grace` is what running nodes get at a shutdown, `kill_grace` what a node gets beyond its
    timeout before its process is killed.
    """

    redis: str
    namespace: str
    queue: str
    app: str
    only: tuple[str, ...] = ()
    processes: int = 1
    concurrency: int = 100
    lease: float = 15.0
    grace: float = 30.0
    kill_grace: float = 2.0
    log_level: str = "info"
    nodes: tuple[str, ...] = ()
    storage: str = ""  # as `Storage.told` has it


@dataclass(slots=True, eq=False)
class Child:
    """One process, its page and its pipe."""

    name: str
    process: asyncio.subprocess.Process
    page: SharedPage
    born: float = field(default_factory=time.monotonic)
    is_killed: bool = False
    told_to_cancel: tuple[str, ...] = ()  # taken out of Redis by the next beat

    def tell(self, message: ProcessConfig | Order) -> None:
        """A line on its stdin."""
        stdin = self.process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(msgspec.json.encode(message) + b"\n")

    def kill(self) -> None:
        self.is_killed = True
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()


class Supervisor:
    """Keeps `processes` processes alive until cancelled, then drains them."""

    def __init__(self, store: Store, config: WorkerConfig) -> None:
        self.name = process_name()
        self._store = store
        self._config = config
        self._children: set[Child] = set()
        self._aftermaths: set[asyncio.Task[None]] = set()
        self._stopping = False

    @property
    def is_ready(self) -> bool:
        """Whether every process is registered and reads."""
        live = [child for child in self._children if child.page.is_registered]
        return not self._stopping and len(live) == self._config.processes

    async def run(self) -> None:
        """Supervise until cancelled. Raises ConfigurationError where the app cannot be loaded."""
        keepers = [asyncio.create_task(self._keep()) for _ in range(self._config.processes)]
        helpers = [asyncio.create_task(self._beat()), asyncio.create_task(self._watch())]
        try:
            done, _ = await asyncio.wait([*keepers, *helpers], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._stopping = True
            await self._drain(keepers)
            # What still waits for a Redis that is away is left to the leases.
            for task in [*helpers, *self._aftermaths, *keepers]:
                task.cancel()
            await asyncio.gather(*helpers, *keepers, return_exceptions=True)

    async def _keep(self) -> None:
        """Spawn a process, and another one whenever it ends."""
        failures = 0
        while not self._stopping:
            try:
                child = await self._spawn()
            except OSError as error:  # no descriptor, memory or process left; there may be again
                failures += 1
                log.error("cannot start a process: %s; trying again", error)
                await asyncio.sleep(backoff(failures))
                continue
            code = await child.process.wait()
            self._children.discard(child)
            was_registered = child.page.is_registered
            await self._bury(child, code)
            child.page.close()
            if self._stopping:
                return
            if code == EXIT_UNUSABLE and not was_registered:
                raise ConfigurationError(
                    f"a process for the app {self._config.app!r} cannot start: its error is above"
                )
            lived = time.monotonic() - child.born
            failures = 0 if lived > STABLE or child.is_killed else failures + 1
            if failures:
                await asyncio.sleep(backoff(failures))

    async def _spawn(self) -> Child:
        config = self._config
        page = SharedPage.create(config.concurrency, config.lease)
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "resolute_worker", str(page.descriptor),
                stdin=asyncio.subprocess.PIPE,
                pass_fds=(page.descriptor,),
                start_new_session=True,
            )  # fmt: skip
        except BaseException:
            page.close()
            raise
        name = process_name(process.pid)
        child = Child(name, process, page)
        told = ProcessConfig(
            name=name,
            supervisor=self.name,
            redis=config.redis,
            namespace=config.namespace,
            partitions=self._store.keys.count,
            queue=config.queue,
            app=config.app,
            only=config.only,
            concurrency=config.concurrency,
            lease=config.lease,
            grace=config.grace,
            log_level=config.log_level,
            nodes=config.nodes,
            storage=config.storage,
        )
        child.tell(told)
        self._children.add(child)
        if self._stopping:
            child.tell(Order(drain=True))
        return child

    async def _bury(self, child: Child, code: int) -> None:
        """End the lease of a process that ended, so that its nodes run elsewhere at once.

        What it had when it ended as it was told to is handed back, and counts no crash.
        """
        if child.is_killed or not child.page.is_registered:
            return  # its aftermath ends the lease, once its nodes are handed back
        if child.page.is_drained or code == EXIT_STOOD_DOWN:
            await self._settle(child, [])
            return
        log.error("process %s ended with code %s", child.name, code)
        try:
            await registry.end_lease(self._store, child.name)
        except ResoluteError as error:
            log.warning("ending the lease of %s: %s", child.name, error)

    async def _beat(self) -> None:
        """Raise the beats every third of a lease; pass on what is to be cancelled."""
        while True:
            started = time.monotonic()
            children = [c for c in self._children if c.page.is_registered and not c.is_killed]
            for child in self._children:
                if not child.page.is_registered:
                    child.page.record_beat(started)
            if children:
                try:
                    async with asyncio.timeout(self._config.lease / 3):
                        told = {c.name: c.told_to_cancel for c in children}
                        answers = await registry.beat(self._store, list(told), told)
                except (ResoluteError, TimeoutError) as error:
                    log.debug("beat: %s", str(error) or "Redis does not answer")
                    await asyncio.sleep(min(0.2, self._config.lease / 30))
                    continue
                for child, cancelled in zip(children, answers, strict=True):
                    self._heard(child, cancelled, started)
            pause = self._config.lease / 3 if children else 0.1
            await asyncio.sleep(max(0.0, pause - (time.monotonic() - started)))

    def _heard(self, child: Child, cancelled: list[str] | None, sent: float) -> None:
        if child.is_killed or child not in self._children:
            return  # it ended while the beat was under way, and its page is closed
        if cancelled is None:
            log.warning("process %s lost its lease: replacing it", child.name)
            child.kill()
            self._after(child, [])
            return
        child.page.record_beat(sent)
        child.told_to_cancel = tuple(cancelled)
        if cancelled:
            child.tell(Order(cancel=child.told_to_cancel))

    async def _watch(self) -> None:
        """Kill a process whose node overran timeout and grace, or that is fenced and runs on."""
        while True:
            await asyncio.sleep(WATCH_PERIOD)
            for child in list(self._children):
                if child.is_killed:
                    continue
                overdue = child.page.overdue(self._config.kill_grace)
                if overdue:
                    log.warning("process %s: %d nodes overran their time: replacing it",
                                child.name, len(overdue))  # fmt: skip
                    child.kill()
                    self._after(child, overdue)
                elif self._is_dangerous(child):
                    log.error("process %s: its lease is nearly over: ending it", child.name)
                    child.kill()
                    self._after(child, [])

    def _is_dangerous(self, child: Child) -> bool:
        """Whether it still runs nodes that may soon run elsewhere too."""
        age = child.page.beat_age()
        return age > self._config.lease * 5 / 6 and child.page.is_registered and child.page.is_busy

    def _after(self, child: Child, overdue: list[Overdue]) -> None:
        task = asyncio.create_task(self._settle(child, overdue))
        self._aftermaths.add(task)
        task.add_done_callback(self._aftermaths.discard)

    async def _settle(self, child: Child, overdue: list[Overdue]) -> None:
        await child.process.wait()
        try:
            await settle_killed(self._store, child.name, self._config.queue, overdue)
            await registry.end_lease(self._store, child.name)
        except Exception:
            log.exception("after the end of %s; its lease runs out by itself", child.name)

    async def _drain(self, keepers: list[asyncio.Task[None]]) -> None:
        """Let every process finish within the grace; the leases go on meanwhile."""
        for child in self._children:
            child.tell(Order(drain=True))
        waits = [asyncio.create_task(child.process.wait()) for child in self._children]
        if waits:
            _, slow = await asyncio.wait(waits, timeout=self._config.grace + 10)
            if slow:
                for child in list(self._children):
                    child.kill()
                    self._after(child, [])
        await asyncio.wait([*keepers, *self._aftermaths], timeout=5)
