"""`resolute.sync`: the client for code without a loop. The same calls, which block."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Sequence
from datetime import datetime
from decimal import Decimal
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from resolute.client import client as asynchronous
from resolute.client.letters import DeadLetter
from resolute.client.run import FlowRun as AsyncFlowRun
from resolute.client.run import RunInfo
from resolute.durability import Level
from resolute.durations import Duration
from resolute.model.claims import Debounce, Unique
from resolute.model.cursors import Cursor
from resolute.model.flow import Flow
from resolute.model.messages import NodeRecord
from resolute.model.references import DataRef
from resolute.priority import PriorityName
from resolute.status import RunStatus
from resolute.storage import Storage

T = TypeVar("T")
O = TypeVar("O")  # noqa: E741
I = TypeVar("I")  # noqa: E741


class _Loop:
    """An event loop in a thread of its own; `run` waits for a coroutine in it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="resolute-client", daemon=True
        )
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Raises RuntimeError once it is closed."""
        if self._loop.is_closed():
            work.close()
            raise RuntimeError("this client is closed")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    @property
    def is_closed(self) -> bool:
        return self._loop.is_closed()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class FlowRun(Generic[O]):
    """A run; see `resolute.FlowRun`."""

    def __init__(self, loop: _Loop, run: AsyncFlowRun[O]) -> None:
        self._loop = loop
        self._run = run
        self.id = run.id

    def __repr__(self) -> str:
        return repr(self._run)

    def info(self) -> RunInfo:
        return self._loop.run(self._run.info())

    def status(self) -> RunStatus:
        return self._loop.run(self._run.status())

    def result(
        self,
        type_: Any = None,
        *,
        timeout: Duration | None = None,
        durability: Level | None = None,
    ) -> Any:
        return self._loop.run(self._run.result(type_, timeout=timeout, durability=durability))

    def wait(self, *, timeout: Duration | None = None) -> RunStatus:
        return self._loop.run(self._run.wait(timeout=timeout))

    def peek(self) -> Any:
        return self._loop.run(self._run.peek())

    def costs(self) -> dict[str, Decimal]:
        return self._loop.run(self._run.costs())

    def rerun(self, *, id: str | None = None, durability: Level | None = None) -> FlowRun[O]:
        return FlowRun(self._loop, self._loop.run(self._run.rerun(id=id, durability=durability)))

    def history(self) -> list[NodeRecord]:
        return self._loop.run(self._run.history())

    def children(self, step: str | None = None) -> list[RunInfo]:
        return self._loop.run(self._run.children(step))

    def cancel(self, reason: str = "", *, durability: Level | None = None) -> bool:
        return self._loop.run(self._run.cancel(reason, durability=durability))

    def signal(
        self,
        name: str,
        payload: Any = None,
        *,
        sender: str | None = None,
        durability: Level | None = None,
    ) -> None:
        self._loop.run(self._run.signal(name, payload, sender=sender, durability=durability))

    def query(self, name: str, type_: Any = Any, *, timeout: float = 10.0) -> Any:
        return self._loop.run(self._run.query(name, type_, timeout=timeout))

    def terminate(self, reason: str = "", *, durability: Level | None = None) -> bool:
        return self._loop.run(self._run.terminate(reason, durability=durability))


class Client:
    """``with Client(url) as client:``; see `resolute.Client`."""

    def __init__(
        self,
        url: str | None = None,
        *,
        namespace: str | None = None,
        patience: float = 10.0,
        durability: Level = "fast",
        replicas: int = 1,
        storage: Storage | str | None = None,
    ) -> None:
        self._loop = _Loop()
        try:
            self._client = self._loop.run(
                asynchronous.Client.open(
                    url,
                    namespace=namespace,
                    patience=patience,
                    durability=durability,
                    replicas=replicas,
                    storage=storage,
                )
            )
        except BaseException:
            self._loop.close()
            raise

    @classmethod
    def connect(
        cls,
        url: str | None = None,
        *,
        namespace: str | None = None,
        patience: float = 10.0,
        durability: Level = "fast",
        replicas: int = 1,
        storage: Storage | str | None = None,
    ) -> Self:
        """``with Client.connect(url) as client:``, as of `resolute.Client`."""
        return cls(
            url,
            namespace=namespace,
            patience=patience,
            durability=durability,
            replicas=replicas,
            storage=storage,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. A client that is closed can do nothing more."""
        if self._loop.is_closed:
            return
        self._loop.run(self._client.close())
        self._loop.close()

    def start(
        self,
        flow: Flow[I, O] | str,
        input: Any = None,
        *,
        id: str | None = None,
        queue: str | None = None,
        delay: Duration | None = None,
        at: datetime | None = None,
        priority: PriorityName = "normal",
        unique: Unique | str | None = None,
        debounce: Debounce | None = None,
        durability: Level | None = None,
        wait: bool | float = False,
    ) -> FlowRun[Any]:
        started: AsyncFlowRun[Any] = self._loop.run(
            self._client.start(  # pyright: ignore[reportCallIssue]  # the overloads do not take a union
                flow,  # pyright: ignore[reportArgumentType]
                input,
                id=id,
                queue=queue,
                delay=delay,
                at=at,
                priority=priority,
                unique=unique,
                debounce=debounce,
                durability=durability,
                wait=wait,
            )
        )
        return FlowRun(self._loop, started)

    def start_many(
        self,
        flow: Flow[I, O] | str,
        inputs: Sequence[Any],
        *,
        ids: Sequence[str] | None = None,
        queue: str | None = None,
        delay: Duration | None = None,
        at: datetime | None = None,
        priority: PriorityName = "normal",
        durability: Level | None = None,
    ) -> list[FlowRun[Any]]:
        started: list[AsyncFlowRun[Any]] = self._loop.run(
            self._client.start_many(  # pyright: ignore[reportCallIssue]  # the overloads do not take a union
                flow,  # pyright: ignore[reportArgumentType]
                inputs,
                ids=ids,
                queue=queue,
                delay=delay,
                at=at,
                priority=priority,
                durability=durability,
            )
        )
        return [FlowRun(self._loop, run) for run in started]

    def get(self, id: str) -> FlowRun[Any]:
        return FlowRun(self._loop, self._loop.run(self._client.get(id)))

    def list(
        self,
        *,
        status: RunStatus | str | None = None,
        flow: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> list[RunInfo]:
        return self._loop.run(self._client.list(status=status, flow=flow, limit=limit, after=after))

    def cancel(self, id: str, reason: str = "", *, durability: Level | None = None) -> bool:
        return self._loop.run(self._client.cancel(id, reason, durability=durability))

    def signal(
        self,
        id: str,
        name: str,
        payload: Any = None,
        *,
        sender: str | None = None,
        durability: Level | None = None,
    ) -> None:
        work = self._client.signal(id, name, payload, sender=sender, durability=durability)
        self._loop.run(work)

    def query(self, id: str, name: str, type_: Any = Any, *, timeout: float = 10.0) -> Any:
        return self._loop.run(self._client.query(id, name, type_, timeout=timeout))

    def cursor(self, namespace: str, name: str) -> Cursor:
        return self._loop.run(self._client.cursor(namespace, name))

    def set_cursor(self, namespace: str, name: str, value: Any) -> None:
        self._loop.run(self._client.set_cursor(namespace, name, value))

    def trigger(
        self,
        name: str,
        payload: Any = None,
        *,
        id: str | None = None,
        durability: Level | None = None,
    ) -> Sequence[FlowRun[Any]]:
        work = self._client.trigger(name, payload, id=id, durability=durability)
        return [FlowRun(self._loop, run) for run in self._loop.run(work)]

    def terminate(self, id: str, reason: str = "", *, durability: Level | None = None) -> bool:
        return self._loop.run(self._client.terminate(id, reason, durability=durability))

    def retry(
        self, id: str, *, number: int | None = None, durability: Level | None = None
    ) -> FlowRun[Any]:
        work = self._client.retry(id, number=number, durability=durability)
        return FlowRun(self._loop, self._loop.run(work))

    def rerun(
        self, run_id: str, /, *, id: str | None = None, durability: Level | None = None
    ) -> FlowRun[Any]:
        work = self._client.rerun(run_id, id=id, durability=durability)
        return FlowRun(self._loop, self._loop.run(work))

    def load(self, ref: DataRef[T]) -> T:
        return self._loop.run(self._client.load(ref))

    def dead_letters(self, *, limit: int = 50) -> Sequence[DeadLetter]:
        return self._loop.run(self._client.dead_letters(limit=limit))

    def dead_letter(self, id: str) -> DeadLetter:
        return self._loop.run(self._client.dead_letter(id))

    def retry_dead_letters(self, *ids: str, all: bool = False) -> Sequence[str]:
        return self._loop.run(self._client.retry_dead_letters(*ids, all=all))

    def drop_dead_letters(self, *ids: str, all: bool = False) -> Sequence[str]:
        return self._loop.run(self._client.drop_dead_letters(*ids, all=all))
