"""A coordinator: its loops, and how they start and stop together. Any number may run."""

from __future__ import annotations

import asyncio
import logging
import os
import socket

from resolute.clock import Clock, SystemClock
from resolute.coordinator.catalog import Catalog
from resolute.coordinator.dispatcher import Dispatcher
from resolute.coordinator.leases import Leases
from resolute.coordinator.objects import Objects
from resolute.coordinator.reconciler import Reconciler
from resolute.coordinator.retention import Retention
from resolute.coordinator.schedules import Schedules
from resolute.coordinator.surviving import surviving
from resolute.coordinator.timers import Timers
from resolute.errors import ConfigurationError, ResoluteError
from resolute.ids import process_name
from resolute.storage import Storage
from resolute.store import registry, server
from resolute.store.store import Store

log = logging.getLogger(__name__)

TAKE_OVER_PERIOD = 2.0  # s
IDLE_TAKE_OVER_PERIOD = 5.0  # s, where nothing was going on


class Coordinator:
    """Runs until cancelled. `lease` and `retention` are in seconds."""

    def __init__(
        self,
        store: Store,
        *,
        lease: float = 15.0,
        retention: float = 86_400.0,
        clock: Clock | None = None,
        storage: Storage | None = None,
    ) -> None:
        self.name = process_name()
        self._store = store
        self._lease = lease
        clock = clock or SystemClock()
        retention_ms = round(retention * 1000)
        self.catalog = Catalog(store, clock)
        self.timers = Timers(store)
        self.leases = Leases(store, self.catalog, clock, self.name, lease)
        self.reconciler = Reconciler(store, self.catalog, lease, self.leases.is_over)
        self.schedules = Schedules(store, self.catalog, retention_ms)
        self.retention = Retention(store, self.catalog, retention_ms)
        self.objects = Objects(store, storage, self.retention.period)
        self.dispatcher = Dispatcher(
            store, self.catalog, self.name, retention_ms, self._wake, self.reconciler.sweep
        )
        self.is_ready = False
        self._run_ids: set[str] = set()
        self._generation = 0

    def _wake(self) -> None:
        self.timers.wake()
        self.leases.wake()

    async def run(self) -> None:
        """Register and coordinate until cancelled; then let go of the lease.

        Raises ConfigurationError where the namespace was given another number of partitions.
        """
        try:
            await self._register()
            self.is_ready = True
            log.info("coordinator %s is ready", self.name)
            async with asyncio.TaskGroup() as group:
                for loop in (
                    self.dispatcher.run(),
                    self.timers.run(),
                    self.leases.run(),
                    self.reconciler.run(),
                    self.schedules.run(),
                    self.retention.run(),
                    self.objects.run(),
                    self._beat(),
                    self._take_over(),
                ):
                    group.create_task(loop)
        except BaseExceptionGroup as errors:
            for error in errors.exceptions:
                if isinstance(error, ConfigurationError):
                    raise error from None
            raise
        finally:
            self.is_ready = False
            await self._leave()

    async def _register(self) -> None:
        info = registry.ProcessInfo(
            name=self.name,
            kind="coordinator",
            host=socket.gethostname(),
            pid=os.getpid(),
            started=await registry.server_ms(self._store),
            lease=self._lease,
        )
        await registry.register(self._store, info, {})

    async def _leave(self) -> None:
        try:
            async with asyncio.timeout(2):
                await registry.end_lease(self._store, self.name)
        except (ResoluteError, TimeoutError):
            log.warning("could not say goodbye; the lease runs out by itself")

    async def _beat(self) -> None:
        """Say that we live; register anew where that was forgotten; notice another server."""
        while True:
            with surviving(log, "beat"):
                answer = await registry.beat(self._store, [self.name])
                if answer[0] is None:
                    # Forgotten, perhaps with everything else (FLUSHALL).
                    await self._store.confirm_partitions()
                    await self._register()
                if self._store.generation != self._generation:
                    await self._notice_servers()
            await asyncio.sleep(self._lease / 3)

    async def _notice_servers(self) -> None:
        """After a reconnect: are they the same runs of the same servers?"""
        self._generation = self._store.generation
        run_ids = await server.run_ids(self._store)
        if self._run_ids and run_ids != self._run_ids:
            log.warning("a server was restarted or replaced: sweeping")
            self.reconciler.sweep()
            self._wake()
        self._run_ids = run_ids

    async def _take_over(self) -> None:
        handled = 0
        while True:
            busy, handled = handled != self.dispatcher.handled, self.dispatcher.handled
            await asyncio.sleep(TAKE_OVER_PERIOD if busy else IDLE_TAKE_OVER_PERIOD)
            with surviving(log, "taking over"):
                taken = await self.dispatcher.take_over()
                if taken:
                    log.info("took over %d events of another coordinator", taken)
