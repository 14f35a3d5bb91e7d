"""FlowTester: a flow in memory and virtual time, by the very rules that production runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from operator import itemgetter
from typing import Any, Generic, Self, TypeVar, cast

from resolute.client.directory import encode_signal, encode_typed
from resolute.client.history import history_of
from resolute.client.run import failure_of
from resolute.durations import Duration, seconds
from resolute.engine.reading import WholeOutputs, answer
from resolute.errors import ErrorInfo, FlowTesterError, UnknownQuery
from resolute.ids import runs_above
from resolute.model import codec
from resolute.model.cursors import Cursor, cursor_field
from resolute.model.flow import Flow
from resolute.model.messages import NodeRecord
from resolute.model.nodes import Node
from resolute.model.provider import Provider
from resolute.model.references import DataRef
from resolute.model.state import NIL, FlowState, whole
from resolute.priority import Priority, PriorityName, check_priority, lane_of
from resolute.status import RunStatus
from resolute.storage import Storage
from resolute.store.costs import costs_of
from resolute.testing import mocks
from resolute.testing.buckets import MemoryBuckets
from resolute.testing.family import Member, MemoryFamily, result_of
from resolute.testing.memory import MemoryRun
from resolute.testing.mocks import Calls, Mocks, Named
from resolute.testing.places import MemoryPlaces
from resolute.testing.virtual_time import VirtualTimeLoop
from resolute.testing.working import MemoryOutputs, MemoryWorker

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
T = TypeVar("T")

RUN_ID = "test"
QUEUE = "test"


class TesterResult(Generic[O]):
    """How a run ended."""

    __test__ = False  # pytest would take it for a class of tests

    def __init__(
        self,
        flow: Flow[Any, O],
        run: MemoryRun,
        children: Mapping[str, TesterResult[Any]] | None = None,
    ) -> None:
        self._flow = flow
        self._run = run
        self._header = run.header()
        self.children = children or {}  # the runs that it started, and that those did, by id

    def __repr__(self) -> str:
        error = f": {self.error}" if self.error else ""
        return f"<run of {self._flow.name!r}, {self.status}{error}>"

    @property
    def status(self) -> RunStatus:
        return self._header.status

    @property
    def output(self) -> O:
        """What the last step returned. Raises FlowFailed or FlowCancelled where there is none."""
        failure = failure_of(self._header)
        if failure is not None:
            raise failure
        outputs = MemoryOutputs(self._flow, self._run)
        data = whole(outputs, result_of(self._flow, self._run))
        return codec.decode(data or NIL, self._flow.result_type)

    def load(self, ref: DataRef[T]) -> T:
        """The value that a `DataRef` of the run refers to."""
        return ref.decode(self._run.objects.read(ref.stored))

    @property
    def error(self) -> ErrorInfo | None:
        """What the first node that failed raised, or that the run was cancelled."""
        return self._header.error

    @property
    def history(self) -> list[NodeRecord]:
        """Every node instance in order of dispatch; times are virtual seconds since the start."""
        return history_of(self._flow.plan, self._run.fields)

    @property
    def fields(self) -> Mapping[str, bytes]:
        """The run as its hash in Redis would be: for tests of Resolute itself."""
        return self._run.fields

    @property
    def costs(self) -> dict[str, Decimal]:
        """What its nodes said they spent, by unit; its children have sums of their own."""
        return costs_of(self._run.fields)

    @property
    def state(self) -> FlowState:
        """The outputs of the nodes that completed."""
        return FlowState(WholeOutputs(self._flow, MemoryOutputs(self._flow, self._run)))

    def query(self, name: str, type_: Any = Any) -> Any:
        """What `run.query(name)` answers. Raises UnknownQuery, and what its function does."""
        if name not in self._flow.queries:
            raise UnknownQuery(self._flow.name, name, self._flow.queries)
        data = answer(self._flow, name, MemoryOutputs(self._flow, self._run))
        return codec.decode(data, type_)


@dataclass(frozen=True)
class _Signal:
    """What a client sends, `after` so many seconds."""

    name: str
    payload: Any
    after: float


class FlowTester:
    """Runs a built flow in memory: no Redis, no processes, and no waiting.

    Types, codec, limits of size, retries, compensation and the order of steps are those of
    production. Time is virtual: it passes when every node waits, so that a retry in a minute or
    `asyncio.sleep(3600)` in a node takes none. Backoff has no jitter here.

    A tester keeps its mocks from one run to the next; all else is of the last run.
    """

    def __init__(self) -> None:
        self._mocks = Mocks()
        self._nodes: dict[str, Node[Any, Any]] = {}
        self._has_limits = False
        self._has_storage = True
        self._cancel_at: float | None = None
        self._terminate_at: float | None = None
        self._signals: list[_Signal] = []
        self._starts_at: datetime | None = None
        self._flows: dict[str, Flow[Any, Any]] = {}
        self._cursors: dict[str, bytes] = {}
        self._last: _Play | None = None

    # What replaces the functions of nodes.

    def mock(self, node: Named, fn: Callable[..., Any]) -> Self:
        """Call `fn` with the input in place of the node's function; it may be a coroutine function.

        What it returns is checked as the node's own output is. A predicate is named ``when.<n>``,
        from 1 in order of writing; its function gets the state.
        """
        body = mocks.calling(mocks.name_of(node), fn)
        return self._mock(node, lambda: body)

    def mock_value(self, node: Named, value: Any) -> Self:
        """Let the node return `value`."""
        return self._mock(node, lambda: mocks.returning(value))

    def mock_error(self, node: Named, error: BaseException | type[BaseException]) -> Self:
        """Let every attempt of the node raise `error`."""
        if not mocks.is_error(error):
            name = mocks.name_of(node)
            raise FlowTesterError(f"mock_error of {name!r}: expected an exception, got {error!r}")
        return self._mock(node, lambda: mocks.raising(error))

    def mock_sequence(self, node: Named, outcomes: Sequence[Any]) -> Self:
        """Let the n-th attempt return the n-th of `outcomes`, or raise it if it is an exception.

        One more attempt than that is a FlowTesterError.
        """
        kept = list(outcomes)
        return self._mock(node, lambda: mocks.in_turn(mocks.name_of(node), kept))

    def with_nodes(self, *nodes: Node[Any, Any]) -> Self:
        """Run these nodes where a flow names them as `Node.named`, as their team's worker does.

        A named node that is neither here nor mocked is a FlowTesterError when it is reached.
        """
        for node in nodes:
            if node.is_named:
                raise FlowTesterError(f"with_nodes: the code of node {node.name!r} is not here")
            self._nodes[node.name] = node
        return self

    def with_providers(self, *providers: Provider) -> Self:
        """Run the nodes of these providers where a flow names them."""
        return self.with_nodes(*(node for one in providers for node in one.offered.values()))

    def _mock(self, node: Named, make: Callable[[], mocks.Body]) -> Self:
        self._mocks.add(node, make)
        return self

    # How a run goes.

    def with_rate_limiting(self) -> Self:
        """Let rate limits take (virtual) time, each bucket full at the start of the run.

        Without this a limit grants at once.
        """
        self._has_limits = True
        return self

    def without_storage(self) -> Self:
        """Let what is above `max_payload` be PayloadTooLarge, as where no storage is configured.

        Without this a run has a storage in memory.
        """
        self._has_storage = False
        return self

    def cancel_at(self, after: Duration) -> Self:
        """Cancel the run so long after its start: seconds, or a text such as "2m"."""
        self._cancel_at = seconds(after)
        return self

    def terminate_at(self, after: Duration) -> Self:
        """End the run so long after its start, without compensation."""
        self._terminate_at = seconds(after)
        return self

    def signal(self, name: str, payload: Any = None, *, after: Duration = 0) -> Self:
        """Send the run a signal, so long after its start; it is kept until a gate takes it.

        Each call sends one more. What the flow does not take, by its name or its type, is refused
        by `run`, as by a client.
        """
        self._signals.append(_Signal(name, payload, seconds(after)))
        return self

    def starts_at(self, moment: datetime) -> Self:
        """Let runs start at `moment` (with a time zone), which counts for `then_sleep_until`.

        Without this they start now.
        """
        if moment.tzinfo is None:
            raise FlowTesterError(f"starts_at: expected a time zone, got {moment!r}")
        self._starts_at = moment
        return self

    def set_cursor(self, namespace: str, name: str, value: Any) -> Self:
        """Let a cursor be saved before the next run; what runs save is there for those after."""
        self._cursors[cursor_field(namespace, name)] = codec.encode(value, what=f"cursor {name}")
        return self

    def cursor(self, namespace: str, name: str) -> Cursor:
        """A cursor as it was saved last; the namespace is the flow's name, unless it says else."""
        return Cursor(self._cursors.get(cursor_field(namespace, name)))

    def with_flow(self, *flows: Flow[Any, Any]) -> Self:
        """Let `then_children` find these by their names, where a flow names others only."""
        self._flows |= {flow.name: flow for flow in flows}
        return self

    def run(
        self, flow: Flow[I, O], input: I | None = None, *, priority: PriorityName = "normal"
    ) -> TesterResult[O]:
        """Run `flow` to its end, however it ends. `None` stands for the defaults of its input type.

        `priority` is written down in the history, and changes no order: nothing waits for a worker.

        Raises InvalidInput, NotEncodable and PayloadTooLarge for the input, as a client does, and
        UnknownSignal and InvalidSignal for a signal; FlowTesterError for a mistake of the test: a
        mock of a node that is not there, a gate that nobody passes and that has no timeout.
        """
        if _is_in_a_loop():
            raise FlowTesterError(
                "FlowTester.run() was called in a running event loop: use"
                " `await tester.run_async(...)`"
            )
        return self._run(flow, input, priority)

    async def run_async(
        self, flow: Flow[I, O], input: I | None = None, *, priority: PriorityName = "normal"
    ) -> TesterResult[O]:
        """`run` for a test that is a coroutine.

        The nodes run on a loop and in a thread of their own: what belongs to the loop of the test
        (its locks, its connections) is not for them.
        """
        return await asyncio.to_thread(self._run, flow, input, priority)

    def _run(self, flow: Flow[Any, O], value: Any, priority: PriorityName) -> TesterResult[O]:
        if not isinstance(cast("object", flow), Flow):
            hint = ": call its build()" if callable(getattr(flow, "build", None)) else ""
            raise FlowTesterError(f"run: expected a built flow, got {flow!r}{hint}")
        storage = Storage("memory://") if self._has_storage else None
        data = encode_typed(flow, value, storage.max_stored if storage is not None else 0)
        signals = [
            (one.after, one.name, encode_signal(flow.name, flow.plan, one.name, one.payload))
            for one in self._signals
        ]
        start = self._starts_at or datetime.now(UTC)
        known = {one.name: one for given in self._flows.values() for one in given.family()}
        play = _Play(
            flow, data, self._mocks, self._nodes, start, known, self._cursors, storage,
            priority=check_priority(priority), has_limits=self._has_limits,
        )  # fmt: skip
        self._last = play
        for number, (after, name, payload) in enumerate(signals):
            play.plan(after, partial(play.run.signal, name, str(number), payload))
        if self._cancel_at is not None:
            play.plan(self._cancel_at, play.cancel)
        if self._terminate_at is not None:
            play.plan(self._terminate_at, play.terminate)
        play.go()
        children = {
            child: TesterResult(member.flow, member.run)
            for child, member in play.family.members.items()
            if child != RUN_ID
        }
        return TesterResult(flow, play.run, children)

    # What happened in the last run.

    @property
    def now(self) -> float:
        """Virtual seconds since the start of the run; while it lasts, for the nodes to see."""
        return self._last.loop.time() if self._last else 0.0

    @property
    def state(self) -> FlowState:
        """The outputs of the nodes that have completed."""
        play = self._played()
        return FlowState(WholeOutputs(play.flow, MemoryOutputs(play.flow, play.run)))

    def calls(self, node: Named) -> list[Any]:
        """The inputs that the node was called with, in order: one for each attempt."""
        return self._played().calls.of(node)

    def call_count(self, node: Named) -> int:
        return len(self.calls(node))

    def was_called(self, node: Named) -> bool:
        return bool(self.calls(node))

    def last_input(self, node: Named) -> Any:
        """Raises FlowTesterError where the node was not called."""
        inputs = self.calls(node)
        if not inputs:
            raise FlowTesterError(f"node {mocks.name_of(node)!r} was not called")
        return inputs[-1]

    def _played(self) -> _Play:
        if self._last is None:
            raise FlowTesterError("this FlowTester has not run a flow yet")
        return self._last


def _is_in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _Play:
    """One run and those that it starts, and the loop that they share."""

    def __init__(
        self,
        flow: Flow[Any, Any],
        data: bytes,
        mocked: Mocks,
        nodes: Mapping[str, Node[Any, Any]],
        start: datetime,
        known: Mapping[str, Flow[Any, Any]],
        cursors: dict[str, bytes],
        storage: Storage | None,
        *,
        priority: Priority,
        has_limits: bool,
    ) -> None:
        self.flow = flow
        flows = {**known, **{one.name: one for one in flow.family()}}
        self._bodies = mocked.bodies(flow.name, flows.values())
        self.calls = Calls(flow.name, flows.values())
        self.loop = VirtualTimeLoop()
        self._epoch = round(start.timestamp() * 1000)
        self._storage = storage
        self._changed = asyncio.Event()
        self._planned: list[tuple[float, Callable[[], object]]] = []
        self._nodes = nodes
        self._cursors = cursors
        self._buckets = MemoryBuckets(self._now_us) if has_limits else None
        self._places = MemoryPlaces(self._now_us, self._wake)
        self.family = MemoryFamily(flows, self._make)
        lane = lane_of(flow.plan.queue or QUEUE, priority)
        self.run = self.family.start(RUN_ID, flow, lane, data)
        self.run.objects.keep_input(flow.max_payload)

    def _make(self, flow: Flow[Any, Any], flow_id: str) -> tuple[MemoryRun, MemoryWorker]:
        above = [self.family.members[one].run for one in runs_above(flow_id)]
        run = MemoryRun(flow_id, self._now_ms, self._epoch, self._storage, above, self.family.inbox)
        run.cursors = self._cursors
        worker = MemoryWorker(
            flow,
            run,
            self.loop,
            self._bodies,
            self._nodes,
            self.calls,
            self._buckets,
            self._places,
            self._changed.set,
        )
        return run, worker

    def _wake(self, name: str) -> bool:
        """Hand out a node that waits for a place; whether it will come."""
        flow_id, seq, index = name.split("|")
        return self.family.members[flow_id].run.wake(int(seq), int(index))

    def plan(self, after: float, action: Callable[[], object]) -> None:
        """Let a client do something so many seconds after the start."""
        self._planned.append((after, action))

    def go(self) -> None:
        """Run to the end."""
        try:
            with asyncio.Runner(loop_factory=lambda: self.loop) as runner:
                for planned in sorted(self._planned, key=itemgetter(0)):
                    self.loop.call_at(planned[0], self._do, planned)
                runner.run(self._until_ended())
        finally:
            for member in self._members():
                member.worker.close()

    def _members(self) -> list[Member]:
        return list(self.family.members.values())

    async def _until_ended(self) -> None:
        while True:
            for member in self._members():
                member.run.fire_due()
            self.family.coordinate()
            for member in self._members():
                member.worker.hand_out()
                if member.worker.verdict is not None:
                    raise member.worker.verdict
            if self.run.header().status.is_terminal:
                self.family.coordinate()  # those that it told to stop
                return
            if not self.family.inbox and all(member.is_idle for member in self._members()):
                await self._wait()

    async def _wait(self) -> None:
        """Until a node has an outcome, or a timer is due."""
        dues = [due for one in self._members() if (due := one.run.next_due) is not None]
        due = min(dues, default=None)
        is_busy = any(member.worker.is_busy for member in self._members())
        if due is None and not (self._planned or is_busy or self._changed.is_set()):
            raise FlowTesterError(self._stuck())
        timer = self.loop.call_at(due / 1000, self._changed.set) if due is not None else None
        await self._changed.wait()
        self._changed.clear()
        if timer is not None:
            timer.cancel()

    def _stuck(self) -> str:
        gates = [
            one
            for one in self._members()
            if not one.run.header().status.is_terminal and "gate" in one.run.fields
        ]
        waiting = gates[-1] if gates else self.family.members[RUN_ID]
        signal = str(waiting.run.fields.get("gate", b""), "utf-8")
        return (
            f"the run of {waiting.flow.name!r} waits for what will never come: no signal"
            f" {signal!r} is sent (tester.signal()), and its gate has no timeout"
        )

    def cancel(self) -> None:
        self.run.cancel(ErrorInfo("Cancelled", "by a client"))

    def terminate(self) -> None:
        self.run.terminate(ErrorInfo("Terminated", "by a client"))

    def _do(self, planned: tuple[float, Callable[[], object]]) -> None:
        self._planned.remove(planned)
        planned[1]()
        self._changed.set()

    def _now_ms(self) -> int:
        return self._now_us() // 1000

    def _now_us(self) -> int:
        return round(self.loop.time() * 1_000_000)
