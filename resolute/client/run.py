"""A run as a client holds it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import msgspec

from resolute.client.history import CHUNK, read_children, read_history
from resolute.durability import Level
from resolute.durations import Duration, seconds
from resolute.engine.reading import step_output
from resolute.errors import (
    DamagedRun,
    ErrorInfo,
    FlowCancelled,
    FlowFailed,
    FlowTerminated,
    ResoluteError,
    UnknownRun,
    reading,
)
from resolute.model import codec
from resolute.model.messages import NodeRecord
from resolute.model.plan import Plan, Producer, Wide, item_key
from resolute.model.references import describe, is_stub
from resolute.model.state import NIL
from resolute.priority import Priority, priority_of, queue_of
from resolute.status import RunStatus
from resolute.store import runs
from resolute.store.costs import read_costs
from resolute.store.store import Store

if TYPE_CHECKING:
    from resolute.client.client import Client

O = TypeVar("O")  # noqa: E741
T = TypeVar("T")

Values = Mapping[str, bytes | None]  # encoded, by their key
Whole = Callable[[Values], Awaitable[dict[str, bytes | None]]]

REREAD = 30.0  # s; after so long without news the run is read again


class RunInfo(msgspec.Struct, frozen=True):
    """What a list shows of a run. Times are seconds of Unix time by Redis's clock."""

    id: str
    flow: str
    status: RunStatus
    started: float
    ended: float | None
    queue: str
    plan: str
    error: ErrorInfo | None = None
    retry_of: str | None = None
    priority: Priority = Priority.NORMAL  # of those of its nodes that have no own

    @classmethod
    def of(cls, header: runs.Header) -> RunInfo:
        return cls(
            header.id, header.flow, header.status, header.started, header.ended,
            queue_of(header.queue), header.plan, header.error, header.retry_of,
            priority_of(header.queue),
        )  # fmt: skip


class FlowRun(Generic[O]):
    """A handle on a run; cheap, and equal to any other handle on the same id."""

    def __init__(self, client: Client, flow_id: str, result_type: Any = Any) -> None:
        self._client = client
        self._result_type = result_type
        self.id = flow_id

    def __repr__(self) -> str:
        return f"FlowRun({self.id!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FlowRun) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    async def info(self) -> RunInfo:
        """The run as it is now. Raises UnknownRun."""
        return RunInfo.of(await self._header())

    async def status(self) -> RunStatus:
        """Raises UnknownRun."""
        return (await self._header()).status

    @overload
    async def result(
        self, *, timeout: Duration | None = None, durability: Level | None = None
    ) -> O: ...
    @overload
    async def result(
        self, type_: type[T], *, timeout: Duration | None = None, durability: Level | None = None
    ) -> T: ...
    async def result(
        self,
        type_: Any = None,
        *,
        timeout: Duration | None = None,
        durability: Level | None = None,
    ) -> Any:
        """What the last step returned, once the run has ended; `timeout` is in seconds.

        Raises FlowFailed, FlowCancelled, FlowTerminated; TimeoutError; UnknownRun; of a result that
        is in the storage StorageUnavailable, ObjectMissing, ChecksumMismatch. The end that it
        tells is so durable as `durability` says, else DurabilityUnavailable or
        DurabilityNotConfirmed is raised.
        """
        header = await self._wait(timeout, self._client.at(durability))
        failure = failure_of(header)
        if failure is not None:
            raise failure
        data = await self._result_data(header, self._client.objects.whole)
        return codec.decode(data, self._result_type if type_ is None else type_)

    async def wait(self, *, timeout: Duration | None = None) -> RunStatus:
        """Wait for the end, however it ends; the status. `timeout` is in seconds.

        Raises TimeoutError, and the run goes on; UnknownRun.
        """
        return (await self._wait(timeout, self._client.store)).status

    async def _wait(self, timeout: Duration | None, durable: Store) -> runs.Header:
        if timeout is None:
            return await self._ended(durable)
        span = seconds(timeout)
        try:
            async with asyncio.timeout(span):
                return await self._ended(durable)
        except TimeoutError:
            raise TimeoutError(f"run {self.id!r} has not ended in {span:g} s; it goes on") from None

    async def rerun(self, *, id: str | None = None, durability: Level | None = None) -> FlowRun[O]:
        """Start a new run with the same input from the start; see `Client.rerun`."""
        run = await self._client.rerun(self.id, id=id, durability=durability)
        return FlowRun(self._client, run.id, self._result_type)

    async def peek(self) -> Any:
        """The result of a completed run, to be shown: what is in the storage is not loaded.

        In its place is a text such as "in storage, 5.2 MB". Raises UnknownRun, ResoluteError.
        """
        return codec.decode(await self._result_data(await self._header(), _described))

    async def history(self) -> list[NodeRecord]:
        """Every node instance with its attempts and times, in order of dispatch."""
        header = await self._header()
        plan = await self._client.directory.plan(header.plan) if header.plan else None
        with reading(self.id):
            return await read_history(self._client.store, header, plan) if plan else []

    async def costs(self) -> dict[str, Decimal]:
        """What its nodes said they spent (`current().add_cost`), by unit; of itself alone.

        Children have sums of their own. Raises UnknownRun.
        """
        await self._header()
        with reading(self.id):
            return await read_costs(self._client.store, self.id)

    async def children(self, step: str | None = None) -> list[RunInfo]:
        """The runs that it has started, of all its steps or of one, in order, as they are now.

        Those that are deleted by now, their retention being over, are left out. Raises UnknownRun.
        """
        header = await self._header()
        plan = await self._client.directory.plan(header.plan) if header.plan else None
        if plan is None:
            return []
        ids = await read_children(self._client.store, header, plan, step or "")
        found: list[RunInfo] = []
        for at in range(0, len(ids), CHUNK):
            headers = await runs.read_headers(self._client.store, ids[at : at + CHUNK])
            found += [RunInfo.of(child) for child in headers if isinstance(child, runs.Header)]
        return found

    async def cancel(self, reason: str = "", *, durability: Level | None = None) -> bool:
        """Cancel it; what completed is compensated. False where it had ended or is failing."""
        return await self._client.cancel(self.id, reason, durability=durability)

    async def signal(
        self,
        name: str,
        payload: Any = None,
        *,
        sender: str | None = None,
        durability: Level | None = None,
    ) -> None:
        """Send it a signal; see `Client.signal`."""
        await self._client.signal(self.id, name, payload, sender=sender, durability=durability)

    @overload
    async def query(self, name: str, *, timeout: float = 10.0) -> Any: ...
    @overload
    async def query(self, name: str, type_: type[T], *, timeout: float = 10.0) -> T: ...
    async def query(self, name: str, type_: Any = Any, *, timeout: float = 10.0) -> Any:
        """Ask it; see `Client.query`."""
        return await self._client.query(self.id, name, type_, timeout=timeout)

    async def terminate(self, reason: str = "", *, durability: Level | None = None) -> bool:
        """End it without compensation. False where it had ended."""
        return await self._client.terminate(self.id, reason, durability=durability)

    async def _header(self, store: Store | None = None) -> runs.Header:
        header = await runs.read_header(store or self._client.store, self.id)
        if header is None:
            raise UnknownRun(self.id)
        return header

    async def _ended(self, durable: Store) -> runs.Header:
        """The header once it is terminal, as `durable` answers for it."""
        store = self._client.store
        channel = store.keys.of(self.id).channel(self.id)
        while True:
            event = await self._client.watcher.watch(channel)
            try:
                header = await self._header()
                if header.status.is_terminal and durable is not store:
                    # The coordinator wrote it: not durable yet, and after a failover perhaps gone.
                    header = await self._header(durable)
                if header.status.is_terminal:
                    return header
                try:
                    async with asyncio.timeout(REREAD):
                        await event.wait()
                except TimeoutError:
                    pass
            finally:
                self._client.watcher.forget(channel, event)

    async def _result_data(self, header: runs.Header, whole: Whole) -> bytes:
        plan = await self._client.directory.plan(header.plan)
        step = result_step(header, plan)
        if step is None:
            (data,) = await self._fields(["input"])
            return (await whole({"input": data}))["input"] or NIL
        names = [node.key for node in step.nodes]
        found = await self._outputs(names, whole)
        if isinstance(step, Wide) and (count := found[step.step]) is not None:
            keys = [item_key(step.step, index) for index in range(int(count))]
            found |= await self._outputs(keys, whole)
        return step_output(step, found.get)

    async def _outputs(self, keys: Sequence[str], whole: Whole) -> dict[str, bytes | None]:
        """Encoded outputs by their key."""
        values = await self._fields([f"o:{key}" for key in keys])
        return await whole(dict(zip(keys, values, strict=True)))

    async def _fields(self, names: Sequence[str]) -> list[bytes | None]:
        """Fields of the run's hash."""
        key = self._client.store.keys.of(self.id).flow(self.id)
        found: list[bytes | None] = []
        for at in range(0, len(names), 1000):
            found += await self._client.store.execute("HMGET", key, *names[at : at + 1000])
        return found


async def _described(values: Values) -> dict[str, bytes | None]:
    """Values, with a text in place of those that are in the storage."""
    return {
        key: describe(value) if value and is_stub(value) else value for key, value in values.items()
    }


def result_step(header: runs.Header, plan: Plan | None) -> Producer | None:
    """The step whose output is the result of a completed run. Raises ResoluteError.

    None where no step was on its path, as with a branch that was not taken: the result is then what
    a next step would have got, the flow's input.
    """
    if plan is None:
        raise ResoluteError(f"run {header.id!r}: its plan is not stored")
    if header.previous is None:
        return None
    step = plan.instructions[header.previous]
    if not isinstance(step, Producer):
        raise DamagedRun(header.id, f"instruction {header.previous} has no output")
    return step


def failure_of(header: runs.Header) -> FlowFailed | None:
    """What is raised of a run that ended, but did not complete."""
    match header.status:
        case RunStatus.CANCELLED:
            return FlowCancelled(header.id, header.error)
        case RunStatus.TERMINATED:
            return FlowTerminated(header.id, header.error)
        case RunStatus.FAILED:
            return FlowFailed(header.id, header.error)
        case _:
            return None
