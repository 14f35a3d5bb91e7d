"""A worker process: loads the app, registers, reads, runs, until its supervisor says otherwise.

Started by the supervisor with the descriptor of the shared page as its argument, its
configuration as the first line of stdin, and orders as further lines; the end of stdin means that
the supervisor is gone.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping

import msgspec
import uvloop

from resolute.daemon import EXIT_FAILED, EXIT_UNUSABLE, configure_logging
from resolute.errors import ConfigurationError, ResoluteError
from resolute.storage import Storage
from resolute.store import registry
from resolute.store.registry import ProcessInfo, named_stream
from resolute.store.store import Store
from resolute_worker.apps import load_app
from resolute_worker.health import HealthChecks
from resolute_worker.jobs import Stop
from resolute_worker.reader import Reader
from resolute_worker.runner import Runner
from resolute_worker.shared import SharedPage
from resolute_worker.slots import Slots

log = logging.getLogger(__name__)

FENCE_PERIOD = 0.1  # s between looks at the beat
FENCE_PATIENCE = 1.0  # s for stopped nodes to end, before the process ends itself
CHILD_VARIABLE = "RESOLUTE_CHILD"
EXIT_STOOD_DOWN = 3  # it ended itself because a node did not stop when the lease was nearly over


class ProcessConfig(msgspec.Struct, frozen=True):
    """What the supervisor tells a process at its start. `grace` and `lease` are in seconds."""

    name: str
    supervisor: str
    redis: str
    namespace: str
    partitions: int
    queue: str
    app: str
    only: tuple[str, ...]
    concurrency: int
    lease: float
    grace: float
    log_level: str
    nodes: tuple[str, ...] = ()
    storage: str = ""  # as `Storage.told` has it


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """A line on stdin: finish and go, or cancel these nodes."""

    drain: bool = False
    cancel: tuple[str, ...] = ()


class Process:
    """One incarnation: a consumer whose name is never used again."""

    def __init__(self, config: ProcessConfig, page: SharedPage, store: Store) -> None:
        self._config = config
        self._page = page
        self._store = store
        self._slots = Slots(config.concurrency)
        app = load_app(config.app)
        self._flows, self._nodes = app.choose(config.only, config.nodes)
        self._providers = app.offering(self._nodes)
        self._health = HealthChecks(self._providers, self._note_health)
        storage = Storage.from_told(config.storage) if config.storage else None
        self._runner = Runner(
            store, config.name, self._flows, self._slots, page, self._nodes, storage
        )
        special = [flow.plan_hash for flow in self._flows.values()]
        special += [named_stream(name) for name in self._nodes]
        self._reader = Reader(store, config.name, config.queue, special, self._runner, self._slots)
        self._draining = asyncio.Event()

    async def run(self, orders: asyncio.StreamReader) -> None:
        """Register and work until drained."""
        await self._reader.ensure_groups()
        self._info = await self._register()
        self._page.is_registered = True
        reading = asyncio.create_task(self._reader.run())
        listening = asyncio.create_task(self._listen(orders))
        guarding = asyncio.create_task(self._guard())
        looking = asyncio.create_task(self._look_around())
        placing = asyncio.create_task(self._runner.places.run())
        draining = asyncio.create_task(self._draining.wait())
        checking = asyncio.create_task(self._health.run())  # whatever becomes of it ends nothing
        tasks = {reading, listening, guarding, looking, placing, draining}
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {draining}:
            task.result()
        listening.cancel()
        looking.cancel()
        checking.cancel()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        await self._drain()
        self._page.is_drained = True
        guarding.cancel()
        placing.cancel()
        self._runner.close()

    async def _register(self) -> ProcessInfo:
        config = self._config
        info = ProcessInfo(
            name=config.name,
            kind="worker",
            host=socket.gethostname(),
            pid=os.getpid(),
            started=await registry.server_ms(self._store),
            lease=config.lease,
            queue=config.queue,
            flows={name: flow.plan_hash for name, flow in self._flows.items()},
            concurrency=config.concurrency,
            supervisor=config.supervisor,
            nodes=tuple(self._nodes),
            providers={one.name: one.version for one in self._providers},
        )
        plans = {flow.plan_hash: flow.plan for flow in self._flows.values()}
        await registry.register(self._store, info, plans)
        return info

    async def _note_health(self, ill: Mapping[str, str]) -> None:
        info = msgspec.structs.replace(self._info, ill=dict(ill))
        await registry.note_health(self._store, info)

    async def _listen(self, orders: asyncio.StreamReader) -> None:
        decode = msgspec.json.Decoder(Order).decode
        while line := await orders.readline():
            order = decode(line)
            if order.drain:
                self._draining.set()
            self._runner.cancel_nodes(order.cancel)
        log.error("the supervisor is gone")
        os._exit(1)

    async def _guard(self) -> None:
        """Stop everything while the lease may be over. It never waits for Redis."""
        was_fenced = False
        while True:
            await asyncio.sleep(FENCE_PERIOD)
            is_fenced = self._page.is_fenced
            if is_fenced and not was_fenced and self._runner.jobs:
                log.warning("no beat was acknowledged for %.1f s: stopping %d nodes",
                            self._page.beat_age(), len(self._runner.jobs))  # fmt: skip
            was_fenced = is_fenced
            if is_fenced:
                await self._stand_down()

    async def _look_around(self) -> None:
        """After a reconnect and once a lease, look at what is claimed and pending here."""
        loop = asyncio.get_running_loop()
        generation, looked = self._store.generation, loop.time()
        while True:
            await asyncio.sleep(FENCE_PERIOD)
            try:
                if self._store.generation != generation:
                    generation = self._store.generation
                    await self._runner.reaffirm()
                if loop.time() - looked > self._config.lease and not self._draining.is_set():
                    looked = loop.time()
                    await self._reader.read_pending()
            except ResoluteError as error:
                log.warning("looking at what is pending: %s", error)

    async def _stand_down(self) -> None:
        """The lease may be over before Redis hears of us: stop everything that runs.

        A node that does not stop is stopped with its process.
        """
        self._runner.stop_all(Stop.HAND_BACK)
        loop = asyncio.get_running_loop()
        give_up = loop.time() + min(FENCE_PATIENCE, self._config.lease / 12)
        while any(job.task and not job.task.done() for job in self._runner.jobs.values()):
            if loop.time() > give_up and self._page.is_fenced:
                log.error("a node does not stop: ending the process")
                os._exit(EXIT_STOOD_DOWN)
            await asyncio.sleep(FENCE_PERIOD / 4)

    async def _drain(self) -> None:
        """Finish within the grace, hand back the rest."""
        grace = self._config.grace
        try:
            async with asyncio.timeout(grace):
                await self._runner.wait_idle()
                return
        except TimeoutError:
            left = len(self._runner.jobs)
        log.warning("handing back %d nodes that did not finish in %g s", left, grace)
        self._runner.stop_all(Stop.HAND_BACK)
        try:
            async with asyncio.timeout(5):
                await self._runner.wait_idle()
        except TimeoutError:
            log.warning("%d nodes do not stop; they are taken back", len(self._runner.jobs))


def _die_with_parent() -> None:
    """On Linux the kernel kills us when the supervisor dies, however busy we are."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


async def _serve(config: ProcessConfig, page: SharedPage, orders: asyncio.StreamReader) -> None:
    store = await Store.open(
        config.redis, config.namespace, name=config.name, patience=float("inf"), wait=True,
        partitions=config.partitions,
    )  # fmt: skip
    try:
        await Process(config, page, store).run(orders)
    finally:
        await store.close()


async def _main(descriptor: int) -> None:
    orders = asyncio.StreamReader(limit=16 * 1024 * 1024)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    config = msgspec.json.decode(await orders.readline(), type=ProcessConfig)
    configure_logging(config.log_level)
    page = SharedPage(descriptor, config.concurrency)
    await _serve(config, page, orders)


def main() -> None:
    """The process's program: `python -m resolute_worker DESCRIPTOR`."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ[CHILD_VARIABLE] = "1"
    try:
        uvloop.run(_main(int(sys.argv[1])))
    except ConfigurationError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.stderr.flush()
        os._exit(EXIT_UNUSABLE)
    except Exception:
        # Without waiting for threads: the supervisor would keep a process alive that does nothing.
        log.exception("the process failed")
        sys.stderr.flush()
        os._exit(EXIT_FAILED)
    sys.stderr.flush()
    # Threads whose nodes did not end must not hold the process.
    os._exit(0)
