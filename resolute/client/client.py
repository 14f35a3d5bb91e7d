"""The client: what an application holds."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from typing import Any, TypeVar, overload

from resolute.client.confirming import naming
from resolute.client.dev_server import DevServer
from resolute.client.directory import (
    Directory,
    choose_queue,
    encode_input,
    encode_signal,
    name_of,
)
from resolute.client.history import read_fields
from resolute.client.letters import DeadLetter, Letters
from resolute.client.listing import check_status, list_runs
from resolute.client.objects import Objects
from resolute.client.querying import query
from resolute.client.retrying import TOLD, plan_retry
from resolute.client.run import FlowRun, RunInfo
from resolute.client.sharing import Wanted, start_debounced, start_unique
from resolute.client.starting import begins, sharing_of, start_encoded
from resolute.client.triggering import Startable, run_id_of, started_by
from resolute.client.watcher import Watcher
from resolute.durability import Level, check_level, check_replicas
from resolute.durations import Duration
from resolute.errors import (
    AlreadyRunning,
    ErrorInfo,
    InvalidInput,
    ResoluteError,
    RunEnded,
    SignalsFull,
    UnknownRun,
)
from resolute.ids import (
    RETRY,
    check_name,
    check_retry,
    check_run_id,
    new_run_id,
    random_text,
    retried_by,
)
from resolute.model import codec
from resolute.model.claims import Debounce, Unique
from resolute.model.codec import DEFAULT_MAX_PAYLOAD
from resolute.model.cursors import Cursor
from resolute.model.flow import Flow
from resolute.model.references import DataRef
from resolute.model.schemas import problem_of
from resolute.priority import PriorityName, check_priority, lane_of
from resolute.status import Code, RunStatus
from resolute.storage import Storage, storage_of
from resolute.store import claims, cursors, runs
from resolute.store.durable import Levels
from resolute.store.keys import key_in
from resolute.store.store import DEFAULT_NAMESPACE, DEFAULT_URL, Store

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
T = TypeVar("T")

MAX_RETRIES_OF_ONE = 10_000


class Client:
    """Starts runs and follows them; made by `Client.connect`."""

    def __init__(
        self,
        store: Store,
        *,
        durability: Level = "fast",
        replicas: int = 1,
        storage: Storage | None = None,
    ) -> None:
        self.store = store
        self.objects = Objects(store, storage)
        self.durability = check_level(durability)
        self.directory = Directory(store)
        self.watcher = Watcher(store)
        self.letters = Letters(store, self.directory)
        self._levels = Levels(store, check_replicas(replicas))
        self._name = random_text(12)  # among those that debounce, with the number of its call
        self._calls = itertools.count(1)

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(
        cls,
        url: str | None = None,
        *,
        namespace: str | None = None,
        patience: float = 10.0,
        durability: Level = "fast",
        replicas: int = 1,
        storage: Storage | str | None = None,
    ) -> AsyncGenerator[Client]:
        """A client for as long as the `async with` lasts.

        Without `url` and `namespace`: RESOLUTE_REDIS and RESOLUTE_NAMESPACE, else what
        `resolute dev` runs in this folder, else redis://localhost:6379/0 and "resolute".
        `patience` (s) is how long a call outlasts a Redis that is away, before it raises
        StoreUnavailable.

        `durability` is how much must have happened to what a call wrote before it returns, unless
        the call says otherwise: "fast" (the server has it), "fsync" (its disk has it) or
        "replicated" (at least `replicas` replicas have it); see docs/durability.md.

        `storage` (a `Storage` or its URL, else RESOLUTE_STORAGE) is where inputs above the flow's
        limit go, and where results are that were above it; see docs/data-references.md.
        """
        client = await cls.open(
            url,
            namespace=namespace,
            patience=patience,
            durability=durability,
            replicas=replicas,
            storage=storage,
        )
        try:
            yield client
        finally:
            await client.close()

    @classmethod
    async def open(
        cls,
        url: str | None = None,
        *,
        namespace: str | None = None,
        patience: float = 10.0,
        durability: Level = "fast",
        replicas: int = 1,
        storage: Storage | str | None = None,
    ) -> Client:
        """Like `connect`, for who closes it himself."""
        check_level(durability)
        check_replicas(replicas)
        url = url or os.environ.get("RESOLUTE_REDIS")
        namespace = namespace or os.environ.get("RESOLUTE_NAMESPACE")
        storage = storage or os.environ.get("RESOLUTE_STORAGE")
        dev = DevServer.read() if url is None else None
        if dev is not None:
            url, namespace, storage = dev.redis, namespace or dev.namespace, storage or dev.storage
        kept = storage_of(storage)
        store = await Store.open(
            url or DEFAULT_URL,
            namespace or DEFAULT_NAMESPACE,
            name="resolute-client",
            patience=patience,
            only_look=True,
        )
        return cls(store, durability=durability, replicas=replicas, storage=kept)

    async def close(self) -> None:
        await self.watcher.close()
        await self._levels.close()
        await self.store.close()

    def at(self, durability: Level | None) -> Store:
        """The store whose calls are so durable when they return; None is the client's own level.

        Raises ConfigurationError for what is no level.
        """
        level = self.durability if durability is None else check_level(durability)
        return self._levels.at(level)

    @overload
    async def start(
        self, flow: Flow[I, O], input: I | None = None, *, id: str | None = None,
        queue: str | None = None, delay: Duration | None = None, at: datetime | None = None,
        priority: PriorityName = "normal", unique: Unique | str | None = None,
        debounce: Debounce | None = None, durability: Level | None = None,
        wait: bool | float = False,
    ) -> FlowRun[O]: ...  # fmt: skip
    @overload
    async def start(
        self, flow: str, input: Any = None, *, id: str | None = None, queue: str | None = None,
        delay: Duration | None = None, at: datetime | None = None,
        priority: PriorityName = "normal", unique: Unique | str | None = None,
        debounce: Debounce | None = None, durability: Level | None = None,
        wait: bool | float = False,
    ) -> FlowRun[Any]: ...  # fmt: skip
    async def start(
        self,
        flow: Flow[Any, Any] | str,
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
        """Start a run; the same `id` with the same flow and input is the same run.

        With `delay`, or `at` (with a time zone), it is there at once and begins then, by the clock
        of Redis. `priority` ("high", "normal" or "low") is that of its nodes that say none
        themselves, and of its children. With a `unique` key there are no two open runs of the flow
        with that key; with `debounce` starts that follow each other are one run. Both choose the
        id themselves. With `wait` it returns when the run has ended, however it did: True waits as
        long as it takes, a number so many seconds, after which TimeoutError is raised and the run
        goes on.

        Raises UnknownFlow, InvalidInput, IdConflict, AlreadyRunning, ValueError for an unusable id
        or priority,
        StoreUnavailable (it may or may not have started: the same call again is safe); for an input
        above the limit PayloadTooLarge, or with a storage StorageUnavailable. With a
        `durability` above "fast" also DurabilityUnavailable (nothing was started) and
        DurabilityNotConfirmed (it was, and the same call again with its id confirms it).
        """
        name_of(flow)
        if unique is not None or debounce is not None:
            if id is not None:
                raise ValueError("start: the id of a run with a key is chosen here: no id= with it")
            how = sharing_of(unique, debounce)
            delay_ms, at_ms = begins(delay, at)
            priority = check_priority(priority)
            store = self.at(durability)
            wanted = Wanted(flow, input, store, queue, priority, delay_ms, at_ms)
            run = await self._start_sharing(how, wanted)
        else:
            ids = None if id is None else [id]
            (run,) = await self.start_many(
                flow,
                [input],
                ids=ids,
                queue=queue,
                delay=delay,
                at=at,
                priority=priority,
                durability=durability,
            )
        if wait is not False:
            await run.wait(timeout=None if wait is True else wait)
        return run

    async def _start_sharing(self, how: Unique | Debounce, wanted: Wanted) -> FlowRun[Any]:
        await self.store.find_partitions()
        match how:
            case Unique():
                return await start_unique(self, wanted, how)
            case Debounce():
                return await start_debounced(self, wanted, how, self._name, next(self._calls))

    async def start_triggered(
        self,
        started: Startable,
        trigger: tuple[str, str],
        input: Any,
        run_id: str | None,
        durability: Level | None = None,
    ) -> FlowRun[Any]:
        """Start a run by one of the flow's triggers, as that says; for who takes its calls.

        `trigger` is its kind and name, and `run_id` is made from the sender's own id of the call.
        Raises what `start` does.
        """
        how, priority = started.by(*trigger), started.priority_by(*trigger)
        flow, queue = started.flow, started.queue
        if how is None:
            return await self.start(
                flow, input, id=run_id, queue=queue, priority=priority, durability=durability
            )
        store = self.at(durability)
        wanted = Wanted(flow, input, store, queue, priority=priority, origin=run_id or "")
        return await self._start_sharing(how, wanted)

    @overload
    async def start_many(
        self, flow: Flow[I, O], inputs: Sequence[I], *, ids: Sequence[str] | None = None,
        queue: str | None = None, delay: Duration | None = None, at: datetime | None = None,
        priority: PriorityName = "normal", durability: Level | None = None,
    ) -> list[FlowRun[O]]: ...  # fmt: skip
    @overload
    async def start_many(
        self, flow: str, inputs: Sequence[Any], *, ids: Sequence[str] | None = None,
        queue: str | None = None, delay: Duration | None = None, at: datetime | None = None,
        priority: PriorityName = "normal", durability: Level | None = None,
    ) -> list[FlowRun[Any]]: ...  # fmt: skip
    async def start_many(
        self,
        flow: Flow[Any, Any] | str,
        inputs: Sequence[Any],
        *,
        ids: Sequence[str] | None = None,
        queue: str | None = None,
        delay: Duration | None = None,
        at: datetime | None = None,
        priority: PriorityName = "normal",
        durability: Level | None = None,
    ) -> list[FlowRun[Any]]:
        """Start a run for each input, in few calls. Raises what `start` does."""
        if ids is not None and len(ids) != len(inputs):
            raise ValueError(f"ids: expected {len(inputs)}, one for each input, got {len(ids)}")
        name = name_of(flow)
        await self.store.find_partitions()
        offered = await self.directory.offered(name)
        lane = lane_of(choose_queue(name, offered, queue), check_priority(priority))
        wait_ms, at_ms = begins(delay, at)
        names = [check_run_id(i) for i in ids] if ids else [new_run_id() for _ in inputs]
        wanted = [
            runs.Start(
                flow_id, name, lane, encode_input(flow, offered, value, self.objects.most),
                delay=wait_ms, at=at_ms,
            )
            for flow_id, value in zip(names, inputs, strict=True)
        ]  # fmt: skip
        limit = flow.max_payload if isinstance(flow, Flow) else DEFAULT_MAX_PAYLOAD
        await start_encoded(self.at(durability), self.objects, wanted, limit)
        result_type = flow.result_type if isinstance(flow, Flow) else Any
        return [FlowRun(self, flow_id, result_type) for flow_id in names]

    async def get(self, id: str) -> FlowRun[Any]:
        """The run of that id. Raises UnknownRun."""
        await self.store.find_partitions()
        if await runs.read_header(self.store, id) is None:
            raise UnknownRun(id)
        return FlowRun(self, id)

    async def list(
        self,
        *,
        status: RunStatus | str | None = None,
        flow: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> list[RunInfo]:
        """Runs, newest first (by their start, ended ones by their end).

        `after` is the id of the last run of the page before.
        """
        wanted = check_status(status)
        await self.store.find_partitions()
        return await list_runs(self.store, wanted, flow, limit, after)

    async def cancel(self, id: str, reason: str = "", *, durability: Level | None = None) -> bool:
        """Cancel a run; what completed is compensated. False where it had ended or is failing.

        Raises UnknownRun, and for its `durability` what `start` does.
        """
        return await self._stop(id, "Cancelled", reason, durability, terminate=False)

    async def terminate(
        self, id: str, reason: str = "", *, durability: Level | None = None
    ) -> bool:
        """End a run at once, without compensation. False where it had ended.

        Raises UnknownRun, and for its `durability` what `start` does.
        """
        return await self._stop(id, "Terminated", reason, durability, terminate=True)

    async def _stop(
        self, id: str, kind: str, reason: str, durability: Level | None, *, terminate: bool
    ) -> bool:
        await self.store.find_partitions()
        error = ErrorInfo(kind, reason or "by a client")
        with naming([id]):
            code = await runs.cancel(self.at(durability), id, error, terminate=terminate)
        if code == Code.GONE:
            raise UnknownRun(id)
        return code == Code.OK

    async def signal(
        self,
        id: str,
        name: str,
        payload: Any = None,
        *,
        sender: str | None = None,
        durability: Level | None = None,
    ) -> None:
        """Send a signal to a run: what a gate waits for, or what its nodes read.

        It is kept until it is taken, also before the run is there to take it. `sender` is your own
        id of this signal: sent twice it is one. Raises UnknownRun, RunEnded, UnknownSignal,
        InvalidSignal, SignalsFull; for its `durability` what `start` does.
        """
        await self.store.find_partitions()
        header = await runs.read_header(self.store, id)
        if header is None:
            raise UnknownRun(id)
        plan = await self.directory.plan(header.plan) if header.plan else None
        if plan is None:
            plan = (await self.directory.offered(header.flow)).plan
        data = encode_signal(header.flow, plan, name, payload)
        one = runs.Signal(id, name, sender or random_text(20), data)
        with naming([id]):
            (code,) = await runs.signal(self.at(durability), self.store.keys.of(id), [one])
        match code:
            case Code.GONE:
                raise UnknownRun(id)
            case Code.EXISTS:
                raise RunEnded(id)
            case Code.FULL:
                raise SignalsFull(id, name)
            case _:
                pass

    @overload
    async def query(self, id: str, name: str, *, timeout: float = 10.0) -> Any: ...
    @overload
    async def query(self, id: str, name: str, type_: type[T], *, timeout: float = 10.0) -> T: ...
    async def query(self, id: str, name: str, type_: Any = Any, *, timeout: float = 10.0) -> Any:
        """What a worker answers to a query that the run's flow declares `with_query`.

        Runs that have ended answer too. `timeout` is in seconds. Raises UnknownRun, UnknownQuery,
        QueryFailed with what the function raised, QueryTimeout where no worker with the run's plan
        answers, msgspec.ValidationError for what is no `type_`.
        """
        await self.store.find_partitions()
        return await query(self.store, self.directory, self.watcher, id, name, type_, timeout)

    async def cursor(self, namespace: str, name: str) -> Cursor:
        """A cursor as it was saved last; the namespace is the flow's name, unless it says else."""
        return Cursor(await cursors.read(self.store, namespace, name))

    async def set_cursor(self, namespace: str, name: str, value: Any) -> None:
        """Let a cursor be `value` (None: not set), such as to do everything anew.

        A run that is under way may move it after that.
        """
        data = None if value is None else codec.encode(value, what=f"cursor {name}")
        check_name("namespace", namespace)
        await cursors.put(self.store, namespace, check_name("cursor", name), data)

    async def trigger(
        self,
        name: str,
        payload: Any = None,
        *,
        id: str | None = None,
        durability: Level | None = None,
    ) -> Sequence[FlowRun[Any]]:
        """Start a run of every flow that is `triggered_by(signal(name))`; the payload is its input.

        `id` is your own id of this signal: sent twice it starts each flow once. Raises
        UnknownTrigger where no flow waits for it; else what `start` does, for the first flow that
        refuses: those before it (by name) have started, and the same call again goes on.
        """
        await self.store.find_partitions()
        found = await started_by(self.store, self.directory, name)
        ids = [run_id_of(one.flow, "signal", id) if id is not None else None for one in found]
        return [
            await self.start_triggered(one, ("signal", name), payload, run_id, durability)
            for one, run_id in zip(found, ids, strict=True)
        ]

    async def retry(
        self, id: str, *, number: int | None = None, durability: Level | None = None
    ) -> FlowRun[Any]:
        """Start an ended run anew from its failed step, or from the first compensated one.

        A step that was over when the run was stopped is not repeated. The new run is
        ``<id>/~<number>``; the same number twice is the same run. Without one, the next that is
        free. Raises UnknownRun; AlreadyRunning where another run has its unique key, which the new
        one has again; ResoluteError for a run that has not ended, or completed; for its
        `durability` what `start` does (give a `number` to call again). ValueError for a number
        below 1.
        """
        if number is not None:
            check_retry(number)
        store = self.at(durability)
        await self.store.find_partitions()
        header = await runs.read_header(self.store, id)
        if header is None:
            raise UnknownRun(id)
        if not header.status.is_terminal or header.status is RunStatus.COMPLETED:
            raise ResoluteError(
                f"run {id!r} is {header.status}: only one that failed, or was cancelled or"
                " terminated, can be retried"
            )
        plan = await self.directory.plan(header.plan) if header.plan else None
        if plan is None:
            raise ResoluteError(f"run {id!r} ended before it began: start it anew")
        fields = await read_fields(self.store, id, *TOLD)
        resumption = plan_retry(header, plan, fields)
        numbers = [number] if number is not None else range(1, MAX_RETRIES_OF_ONE)
        for n in numbers:
            target = f"{retried_by(id)}{RETRY}{n}"
            with naming([target]):
                code, other = await claims.retry(
                    store, header, target, resumption.drop, resumption.fields, plan.deadline_ms
                )
            if code == Code.OK or (code == Code.EXISTS and number is not None):
                return FlowRun(self, target)
            if code == Code.GONE:
                raise UnknownRun(id)
            if code == Code.TAKEN:
                raise AlreadyRunning(header.flow, key_in(header.unique), other)
        raise ResoluteError(f"run {id!r} could not be retried")

    async def rerun(
        self, run_id: str, /, *, id: str | None = None, durability: Level | None = None
    ) -> FlowRun[Any]:
        """Start a new run of the same flow with the same input, from the start.

        It has the plan that is offered today, and the queue and the priority of the other one,
        whatever became of that; no unique key. The same `id` is the same run. Raises UnknownRun,
        and what `start` does: InvalidInput where today's flow takes another input.
        """
        await self.store.find_partitions()
        header = await runs.read_header(self.store, run_id)
        if header is None:
            raise UnknownRun(run_id)
        new = check_run_id(id) if id is not None else new_run_id()
        offered = await self.directory.offered(header.flow)
        key = self.store.keys.of(run_id).flow(run_id)
        whole = await self.objects.whole({"input": await self.store.execute("HGET", key, "input")})
        data = whole["input"]
        if data is None:
            raise UnknownRun(run_id)
        problem = problem_of(offered.plan.input_schema, codec.decode(data))
        if problem:
            raise InvalidInput(header.flow, problem)
        start = runs.Start(new, header.flow, header.queue, data)
        await start_encoded(self.at(durability), self.objects, [start], DEFAULT_MAX_PAYLOAD)
        return FlowRun(self, new)

    async def load(self, ref: DataRef[T]) -> T:
        """The value that a `DataRef` of a run's result or input refers to.

        Raises StorageUnavailable, also where this client has no storage; ObjectMissing,
        ChecksumMismatch; msgspec.ValidationError where it is no T.
        """
        return ref.decode(await self.objects.read(ref.stored))

    async def dead_letters(self, *, limit: int = 50) -> Sequence[DeadLetter]:
        """What nobody could use, newest first. The raw bytes come with `dead_letter`."""
        await self.store.find_partitions()
        return await self.letters.newest(limit)

    async def dead_letter(self, id: str) -> DeadLetter:
        """One dead letter, with its raw bytes. Raises UnknownLetter, ValueError for no such id."""
        await self.store.find_partitions()
        return await self.letters.get(id)

    async def retry_dead_letters(self, *ids: str, all: bool = False) -> Sequence[str]:
        """Put dead letters, as they are, back into the streams that they came from.

        Answers with the ids of those that were there. `all`: every one that is there now, the
        oldest first. Raises ValueError, ResoluteError where one does not say where it came from.
        """
        _check_choice(ids, all)
        await self.store.find_partitions()
        return await (self.letters.retry_all() if all else self.letters.retry(ids))

    async def drop_dead_letters(self, *ids: str, all: bool = False) -> Sequence[str]:
        """Forget dead letters. Answers with the ids of those that were there. Raises ValueError."""
        _check_choice(ids, all)
        await self.store.find_partitions()
        return await (self.letters.drop_all() if all else self.letters.drop(ids))


def _check_choice(ids: Sequence[str], all: bool) -> None:
    if bool(ids) == all:
        raise ValueError("dead letters: expected ids, or all=True")
