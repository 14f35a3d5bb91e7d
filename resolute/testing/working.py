"""The worker of a run in memory: begins what is ready, runs the functions, reports the outcomes.

What an attempt is (its input, what its output must be, when it is tried again) is the engine's, as
in a worker process; here is only what happens in which order, on the loop of the tester.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from typing import Any

import msgspec

from resolute.engine import admission, attempt, context, judging, paging
from resolute.engine.bound import Bound
from resolute.engine.hooking import calls_after, calls_before, calls_of_costs, calls_of_notice
from resolute.engine.reading import field_of
from resolute.engine.undoing import undo_input
from resolute.errors import ErrorInfo, FlowTesterError, NodeTimeout
from resolute.model import codec, references
from resolute.model.costs import Costs
from resolute.model.cursors import cursor_field
from resolute.model.flow import Flow, Lister, Notice, Question, Saver
from resolute.model.functions import check_answer
from resolute.model.messages import Entry
from resolute.model.nodes import Node
from resolute.model.paging import Page, Pager, PageRequest
from resolute.model.state import CURSOR
from resolute.store.places import Ask, Seat, Spot
from resolute.store.runs import decode_error
from resolute.testing.buckets import MemoryBuckets
from resolute.testing.hooking import call_hooks
from resolute.testing.memory import MemoryRun
from resolute.testing.mocks import Body, Calls
from resolute.testing.objects import EntryData
from resolute.testing.places import MemoryPlaces
from resolute.testing.virtual_time import VirtualTimeLoop

LEASE = 15.0  # s; of a worker, from which follows when a node that waits for a place asks again


class Stop(Enum):
    """Why a running node was stopped."""

    TIMEOUT = "timeout"
    SILENCE = "silence"
    CANCEL = "cancel"


class MemoryOutputs:
    """Where an attempt reads from: the fields of the run. Of a list it has the length."""

    def __init__(self, flow: Flow[Any, Any], run: MemoryRun) -> None:
        self.flow = flow
        self._run = run
        self._fields: Mapping[str, bytes] = run.fields
        self._cursors = run.cursors

    def get(self, key: str) -> bytes | None:
        if key.startswith(CURSOR):
            name = key.removeprefix(CURSOR)
            return self._cursors.get(cursor_field(self.flow.namespace, name))
        return self._fields.get(field_of(self.flow, key))

    def keys(self) -> Iterable[str]:
        return [name[2:] for name in self._fields if name.startswith("o:") and "[" not in name]

    def input(self) -> bytes:
        return self._fields["input"]

    def error(self, key: str) -> ErrorInfo | None:
        return decode_error(self._fields.get(f"x:{key}"))

    def whole(self, stub: bytes) -> bytes:
        return references.fill(stub, self._run.objects.read)


@dataclass(slots=True, eq=False)
class Job:
    """One attempt of one node, from its claim to its outcome."""

    entry: Entry
    bound: Bound
    values: Sequence[bytes | None]  # of the fields of `bound`
    value: Any = None
    task: asyncio.Task[None] | None = None
    deadline: asyncio.TimerHandle | None = None
    pulse: asyncio.TimerHandle | None = None  # at which it must have given a heartbeat
    has_told: bool = False  # of its progress
    stop: Stop | None = None
    is_running: bool = False
    is_threaded: bool = False
    costs: Costs = field(default_factory=Costs)
    called: float | None = None  # virtual time at which its function was
    seats: list[Seat] = field(default_factory=list[Seat])
    spots: list[Spot] = field(default_factory=list[Spot])  # where it has a place

    @property
    def place(self) -> str:
        """How its node is called in concurrency limits."""
        return f"{self.entry.flow}|{self.entry.seq}|{self.entry.index}"

    @property
    def is_overdue(self) -> bool:
        return self.stop in (Stop.TIMEOUT, Stop.SILENCE)

    def overrun(self) -> NodeTimeout:
        """The error of one that took too long, or was silent for too long."""
        told = judging.silence_error if self.stop is Stop.SILENCE else judging.timeout_error
        return told(self.bound.plan)

    def request_stop(self, why: Stop) -> None:
        """Cancel it, if its function can be cancelled; the first reason given counts."""
        if self.stop is not None:
            return
        self.stop = why
        if self.task is not None and self.is_running and not self.is_threaded:
            self.task.cancel()


class MemoryWorker:
    """Runs the nodes of one run. `on_change` is called after each outcome.

    Plain functions run in a thread, as in a worker, but one at a time and with the loop waiting:
    so the order of events is always the same.
    """

    def __init__(
        self,
        flow: Flow[Any, Any],
        run: MemoryRun,
        loop: VirtualTimeLoop,
        bodies: Mapping[str, Body],
        nodes: Mapping[str, Node[Any, Any]],
        calls: Calls,
        buckets: MemoryBuckets | None,
        places: MemoryPlaces,
        on_change: Callable[[], None],
    ) -> None:
        self._flow = flow
        self._run = run
        self._loop = loop
        self._bodies = bodies
        self._nodes = nodes
        self._calls = calls
        self._buckets = buckets
        self._places = places
        self._on_change = on_change
        self._outputs = MemoryOutputs(flow, run)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="node")
        self._jobs: dict[tuple[int, int], Job] = {}
        self.verdict: BaseException | None = None  # of the test, raised inside a node

    @property
    def is_busy(self) -> bool:
        return bool(self._jobs)

    def close(self) -> None:
        self._thread.shutdown()

    def hand_out(self) -> None:
        """Begin everything that is ready."""
        while self._run.ready:
            self._begin(self._run.ready.popleft())

    def cancel(self, seq: int, index: int) -> None:
        """Stop a node of a cancelled run, if it runs."""
        job = self._jobs.get((seq, index))
        if job is not None:
            job.request_stop(Stop.CANCEL)

    def _begin(self, entry: Entry) -> None:
        bound = self._bound_for(entry)
        if bound is None:
            return
        fields = bound.fields(entry)
        hold = self._run.record(entry.seq, entry.index).hold
        run_lane = self._run.header().queue
        queue = bound.flow.plan.lane_at(entry.pc, entry.index, run_lane, undo=entry.undo > 0)
        values = self._run.begin(entry, queue, fields)
        if values is None:
            return
        job = Job(entry, bound, values)
        self._jobs[entry.seq, entry.index] = job
        try:
            job.value = attempt.input_value(bound, entry, fields, values, self._outputs)
        except BaseException as error:  # SystemExit too, as in a worker
            self._ended_badly(job, error)
            return
        self._admit(job, hold)

    def _bound_for(self, entry: Entry) -> Bound | None:
        """The node of an entry; None, with a verdict, for a named one that the test does not have.

        One that is only mocked takes and gives anything that its flow expects.
        """
        place, undo = self._flow.place(entry.pc, entry.index), entry.undo > 0
        bound = Bound.of(self._flow, *place, undo=undo)
        name = bound.plan.name
        if bound.named is not None and name in self._nodes:
            bound = Bound.of(self._flow, *place, undo=undo, served=self._nodes[name])
        elif bound.named is not None and name not in self._bodies:
            self.verdict = FlowTesterError(
                f"node {name!r} is run by another team's worker: mock it, or give its node by"
                " with_nodes()"
            )
            return None
        return _without_jitter(bound)

    def _admit(self, job: Job, hold: str) -> None:
        """Start it when its limits allow, or hand it back until they do."""
        try:
            spots = admission.spots_of(job.bound, job.value)
            wanted = admission.buckets_of(job.bound, job.value) if self._buckets else []
        except BaseException as error:  # the key function of a limit is the user's
            self._ended_badly(job, error)
            return
        if not self._take_places(job, hold, spots, wanted):
            return
        if wanted and self._buckets is not None:
            self._take_tokens(job, hold, self._buckets, wanted)
        else:
            self._start(job)

    def _take_places(
        self, job: Job, hold: str, spots: Sequence[Spot], buckets: Sequence[admission.Bucket]
    ) -> bool:
        """Whether it has all its places; if not it is handed back until there is one."""
        entry, ticket = job.entry, admission.read_hold(hold).ticket
        for spot in spots:
            seat = self._places.take(spot, Ask(job.place, entry.token, ticket))
            job.seats.append(seat)
            if seat.granted:
                job.spots.append(spot)
                continue
            if self._buckets is not None:
                for bucket, time, shift in admission.reserved_in(hold, buckets):
                    self._buckets.take(bucket, (admission.Ask.GIVE_BACK, time, shift))
            delay = admission.turn_ms(job.seats, LEASE)
            self._run.give_back(entry, delay, admission.hold_in_line(hold, job.seats))
            self._leave(job)
            return False
        return True

    def _take_tokens(
        self, job: Job, hold: str, buckets: MemoryBuckets, wanted: Sequence[admission.Bucket]
    ) -> None:
        asks = zip(wanted, admission.asks_of(hold, len(wanted)), strict=True)
        grants = [buckets.take(bucket, ask) for bucket, ask in asks]
        wait = admission.wait_of(grants)
        if admission.is_granted(grants) and wait <= admission.SHORT:
            self._loop.call_later(max(0.0, wait), self._start, job)
            return
        for bucket, grant in zip(wanted, grants, strict=True):
            if grant.granted and not admission.is_kept(grant, grants):
                buckets.take(bucket, (admission.Ask.GIVE_BACK, grant.time, grant.shift))
        held = admission.hold_for_time(admission.hold_of(grants), job.seats)
        self._run.give_back(job.entry, admission.delay_ms(wait), held)
        self._leave(job)

    def _start(self, job: Job) -> None:
        if job.stop is not None:
            self._finish_stopped(job)
            return
        before = calls_before(job.entry, job.bound, self._loop.time())
        call_hooks(before, job.bound.plan.name)
        timeout = job.bound.plan.timeout_ms / 1000
        at = self._loop.time() + timeout
        job.deadline = self._loop.set_deadline(at, job.request_stop, Stop.TIMEOUT)
        self._expect_pulse(job)
        job.task = self._loop.create_task(self._execute(job))

    def _expect_pulse(self, job: Job) -> None:
        if job.pulse is not None:
            job.pulse.cancel()
        if span := job.bound.plan.heartbeat_ms / 1000:
            at = self._loop.time() + span
            job.pulse = self._loop.set_deadline(at, job.request_stop, Stop.SILENCE)

    def _beat(self, job: Job, progress: bytes | None) -> None:
        """It lives. From its thread too: the loop waits for that."""
        if self._jobs.get((job.entry.seq, job.entry.index)) is not job:
            return
        self._expect_pulse(job)
        if progress is not None:
            job.has_told = True
            self._run.keep_progress(job.entry, progress)

    async def _execute(self, job: Job) -> None:
        bound = job.bound
        job.is_running = True
        if job.stop is not None:
            self._finish_stopped(job)
            return
        job.called = self._loop.time()
        told = bound.progress(job.entry, job.values)
        job.has_told = told is not None
        job.costs = context.enter(
            job.entry, bound, partial(self._pause, job), partial(self._beat, job), told
        )
        references.access.set(EntryData(self._run.objects, job.entry))
        try:
            pager = bound.pager if bound.plan.name not in self._bodies else None
            request = self._page_request(job, pager) if pager is not None else None
            value = self._call(job, request)
            if isinstance(bound.binding, Question) and bound.plan.name not in self._bodies:
                check_answer(bound.plan.name, value)  # a worker waits for none; of a mock we do
            if inspect.isawaitable(value):
                value = await value
            if job.pulse is not None:
                job.pulse.cancel()
            if pager is not None and request is not None:
                after = pager.after(request, value)
                if after is not None:
                    self._turn_page(job, request, value, after)
                    return
                value = paging.joined(self._pages(job, request.number), value.items)
            if isinstance(bound.binding, Saver):
                self._save_cursor(bound.binding, value)
            elif isinstance(bound.binding, Lister):
                value = self._keep_items(job, value)
            if job.is_overdue:
                raise job.overrun()
            output, arg = attempt.encode_output(bound, value, self._run.objects.most)
            kept = output
            if bound.is_kept(output):
                kept = references.stub_of(self._run.objects.store(job.entry, output))
            undo = self._undo_input(job, output, kept)
        except BaseException as error:
            self._ended_badly(job, error)
        else:
            self._call_hooks_after(job)
            spent = job.costs.packed()
            pages = request.number or None if request is not None else None
            if pages is None and job.has_told and pager is None:
                pages = 0
            self._run.complete(job.entry, bound.key(job.entry), kept, undo, arg, spent, pages)
            self._leave(job)

    def _call_hooks_after(
        self, job: Job, error: bytes | None = None, delay: int | None = None
    ) -> None:
        now = self._loop.time()
        self._call_hooks_of_costs(job)
        calls = calls_after(job.entry, job.bound, job.called, now, error, delay)
        call_hooks(calls, job.bound.plan.name)

    def _call_hooks_of_costs(self, job: Job) -> None:
        call_hooks(calls_of_costs(job.entry, job.bound, job.costs.entries), job.bound.plan.name)

    def _save_cursor(self, saver: Saver, value: Any) -> None:
        if value is not None:
            field = cursor_field(self._flow.namespace, saver.cursor)
            self._run.cursors[field] = codec.encode(value, what=field)

    def _kept(self, entry: Entry, data: bytes) -> bytes:
        """What the hash has of a value: itself, or the stub of one that is too large."""
        if len(data) <= self._flow.max_payload:
            return data
        return references.stub_of(self._run.objects.store(entry, data))

    def _keep_items(self, job: Job, items: Iterable[Any]) -> int:
        flow_id, most = job.entry.flow, self._run.objects.most
        found = attempt.encoded_items(job.bound, flow_id, items, most)
        return self._run.keep_items(job.entry, (self._kept(job.entry, item) for item in found))

    def _undo_input(self, job: Job, output: bytes, kept: bytes) -> bytes | None:
        objects, bound = self._run.objects, job.bound
        made = undo_input(bound, output, self._outputs, objects.most)
        if made is None:
            return None
        if made.data is output:
            return made.pack(kept)
        if objects.storage is not None and made.is_stored(bound, job.values):
            return made.pack(references.stub_of(objects.store(job.entry, made.data)))
        return made.pack()

    def _page_request(self, job: Job, pager: Pager) -> PageRequest:
        """The page that is missing."""
        found = paging.request_of(job.bound, pager, job.entry, job.values)
        if found is not None:
            return found
        start = None
        if pager.cursor_source is not None:
            field = cursor_field(self._flow.namespace, pager.cursor_source)
            start = self._run.cursors.get(field)
        return paging.first_request(pager, start)

    def _turn_page(
        self, job: Job, request: PageRequest, page: Page[Any], after: PageRequest
    ) -> None:
        limit = max(self._run.objects.most, self._flow.max_payload)
        data = self._kept(job.entry, paging.encode_items(page.items, limit))
        self._call_hooks_of_costs(job)
        progress, spent = paging.progress_to(after), job.costs.packed()
        self._run.turn_page(job.entry, request.number, data, progress, spent)
        self._leave(job)

    def _pages(self, job: Job, count: int) -> list[bytes]:
        """The pages that were kept."""
        values = self._run.read(paging.page_fields(job.entry, count))
        whole = self._outputs.whole
        return [whole(value) if references.is_stub(value) else value for value in values if value]

    def _call(self, job: Job, request: PageRequest | None = None) -> Any:
        """What the function returns, or the coroutine of one that is asynchronous."""
        bound = job.bound
        if isinstance(bound.binding, Notice):
            calls = calls_of_notice(job.entry, bound, bound.binding, job.values)
            return call_hooks(calls, bound.plan.name)
        body = self._bodies.get(bound.plan.name)
        self._calls.add(bound.plan.name, job.value)
        if body is not None:
            fn, job.is_threaded = body, False
        elif bound.pager is not None and request is not None:
            fn, job.is_threaded = partial(_ask, bound.pager, request), bound.is_threaded
        else:
            fn, job.is_threaded = bound.call, bound.is_threaded
        if not job.is_threaded:
            return fn(job.value)
        here = copy_context()
        return self._thread.submit(here.run, fn, job.value).result()

    def _ended_badly(self, job: Job, error: BaseException) -> None:
        is_cut_short = not job.is_threaded or isinstance(error, asyncio.CancelledError)
        if _is_for_the_test(error):
            self.verdict = error
            self._leave(job)
        elif job.stop is not None and is_cut_short:
            self._finish_stopped(job)
        else:
            self._fail(job, error)

    def _finish_stopped(self, job: Job) -> None:
        if job.is_overdue:
            self._fail(job, job.overrun())
        else:
            info = ErrorInfo("Cancelled", "the run was cancelled", node=job.bound.plan.name)
            self._report_failure(job, info, None)

    def _fail(self, job: Job, error: BaseException) -> None:
        """A failed attempt, with a retry if the policy grants one."""
        plan = job.bound.plan
        try:
            found = judging.judge(job.bound, job.entry.attempt, error)
        except BaseException as broken:  # its classifier, which is the user's
            self._report_failure(job, ErrorInfo.of(broken, plan.name), None)
            return
        if found.pause is not None:
            self._pause(job, found.pause)
        info = ErrorInfo.of(error, plan.name)
        self._report_failure(job, info, found.delay, is_fatal=found.is_fatal)

    def _pause(self, job: Job, seconds: float) -> None:
        """Nobody starts under this job's limits for so long."""
        if self._buckets is None:
            return
        for bucket in admission.buckets_of(job.bound, job.value):
            self._buckets.push_back(bucket, seconds)

    def _report_failure(
        self, job: Job, info: ErrorInfo, delay: int | None, *, is_fatal: bool = False
    ) -> None:
        plan = job.bound.plan
        key = job.bound.key(job.entry)
        self._call_hooks_after(job, msgspec.msgpack.encode(info), delay)
        forgives = plan.best_effort and not is_fatal
        self._run.fail(job.entry, key, info, delay, job.costs.packed(), best_effort=forgives)
        self._leave(job)

    def _leave(self, job: Job) -> None:
        if job.deadline is not None:
            job.deadline.cancel()
        if job.pulse is not None:
            job.pulse.cancel()
        del self._jobs[job.entry.seq, job.entry.index]
        for spot in job.spots:
            self._places.leave(spot, job.place, job.entry.token)
        self._on_change()


def _ask(pager: Pager, request: PageRequest, value: Any) -> Any:
    return pager.ask(value, request)


def _is_for_the_test(error: BaseException) -> bool:
    """Whether the test itself failed inside a node: `pytest.fail()` in a mock, Ctrl-C."""
    is_of_a_node = isinstance(error, Exception | SystemExit | asyncio.CancelledError)
    return not is_of_a_node or isinstance(error, FlowTesterError)


def _without_jitter(bound: Bound) -> Bound:
    """Two runs of a test must not differ."""
    retry = msgspec.structs.replace(bound.plan.retry, jitter=0.0)
    return replace(bound, plan=msgspec.structs.replace(bound.plan, retry=retry))
