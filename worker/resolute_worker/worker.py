"""`resolute.Worker`: a worker from Python instead of from the command line."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, cast

import uvloop

from resolute.daemon import Daemon, configure_logging
from resolute.durations import Duration, seconds
from resolute.errors import ConfigurationError
from resolute.ids import check_queue
from resolute.model.flow import Flow
from resolute.model.functions import check_count
from resolute.model.nodes import Node
from resolute.model.provider import Provider
from resolute.storage import Storage, storage_of
from resolute.store import server
from resolute.store.store import DEFAULT_NAMESPACE, DEFAULT_URL, Store
from resolute_worker.process import CHILD_VARIABLE
from resolute_worker.supervisor import Supervisor, WorkerConfig


@dataclass(frozen=True)
class Worker:
    """What `resolute-worker` runs. Flags win over RESOLUTE_* variables, these over defaults.

    `app` is where the processes find the flows: a module, ``module:attribute`` or a path; without
    it, the script that calls `run`. `storage` is where outputs above the limit go: a `Storage`, or
    its URL; the options of the former must be plain data.
    """

    queue: str
    app: str | None = None
    processes: int = 1
    concurrency: int = 100
    redis: str | None = None
    namespace: str | None = None
    lease: Duration = 15.0
    grace: Duration = 30.0
    flows: tuple[Flow[Any, Any], ...] = ()
    nodes: tuple[Node[Any, Any], ...] = ()
    storage: Storage | str | None = None

    def __post_init__(self) -> None:
        check_count("worker: processes", self.processes)
        check_count("worker: concurrency", self.concurrency)

    def with_flow(self, *flows: Flow[Any, Any]) -> Self:
        """Offer these flows; where nothing is named, all that the app has."""
        for flow in flows:
            if not isinstance(cast("object", flow), Flow):
                raise TypeError(f"worker: expected a built flow, got {flow!r}")
        return replace(self, flows=(*self.flows, *flows))

    def with_nodes(self, *nodes: Node[Any, Any]) -> Self:
        """Run these nodes for any flow that has them as `Node.named`, from the worker's queue.

        They, or their provider, are module-level names of the app. Whoever can start flows in the
        namespace can have them run, with any input that fits their type.
        """
        for node in nodes:
            if node.is_named:
                raise ConfigurationError(f"worker: the code of node {node.name!r} is not here")
        return replace(self, nodes=(*self.nodes, *nodes))

    def with_providers(self, *providers: Provider) -> Self:
        """Run all nodes of these providers for any flow that names them; see `with_nodes`."""
        return self.with_nodes(*(node for one in providers for node in one.offered.values()))

    def run(self) -> None:
        """Work until SIGTERM or SIGINT. Raises ConfigurationError."""
        if CHILD_VARIABLE in os.environ:
            raise ConfigurationError(
                "Worker.run() was called while the app was loaded: put it under `if __name__ =="
                ' "__main__":`'
            )
        config = self.config()
        daemon = Daemon(config.redis, config.namespace, config.lease)
        configure_logging(daemon.log_level)
        uvloop.run(serve(daemon, config))

    def config(self) -> WorkerConfig:
        """The options, checked."""
        storage = storage_of(self.storage or os.environ.get("RESOLUTE_STORAGE"))
        return WorkerConfig(
            redis=self.redis or os.environ.get("RESOLUTE_REDIS", DEFAULT_URL),
            namespace=self.namespace or os.environ.get("RESOLUTE_NAMESPACE", DEFAULT_NAMESPACE),
            queue=check_queue(self.queue),
            app=self.app or _main_script(),
            only=tuple(flow.name for flow in self.flows),
            processes=self.processes,
            concurrency=self.concurrency,
            lease=seconds(self.lease),
            grace=seconds(self.grace),
            nodes=tuple(node.name for node in self.nodes),
            storage=storage.told() if storage is not None else "",
        )


def _main_script() -> str:
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    if not path or not Path(path).is_file():
        raise ConfigurationError("worker: expected app=, since it is not run from a script")
    return str(path)


async def serve(daemon: Daemon, config: WorkerConfig) -> None:
    """Supervise until SIGTERM or SIGINT."""
    store = await Store.open(
        config.redis, config.namespace, name="resolute-worker", patience=float("inf")
    )
    try:
        await server.check(store, allow_eviction=daemon.allow_eviction)
        supervisor = Supervisor(store, config)
        await daemon.serve(supervisor.run(), lambda: supervisor.is_ready and store.is_connected)
    finally:
        await store.close()
