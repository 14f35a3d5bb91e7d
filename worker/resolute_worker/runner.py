"""Running jobs: begin a batch, resolve inputs, pass the limits, call the function, report."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

import msgspec

from resolute.engine import attempt, context, judging
from resolute.engine.bound import Bound
from resolute.engine.hooking import (
    Call,
    calls_after,
    calls_before,
    calls_of_costs,
    calls_of_notice,
)
from resolute.engine.preloaded import AWAY
from resolute.engine.undoing import UndoInput, undo_input
from resolute.errors import ErrorInfo, NodeTimeout, ResoluteError
from resolute.model import references
from resolute.model.flow import Flow, Lister, Notice, Question, Saver, compensation_of
from resolute.model.hooks import NO_HOOKS
from resolute.model.nodes import Node
from resolute.status import Code
from resolute.storage import Storage
from resolute.store import dead, nodes
from resolute.store.connection import backoff
from resolute.store.nodes import Begun, Completion, Failure, Held, PageTurn, Return
from resolute.store.store import Store
from resolute.store.sync import SyncReader
from resolute_worker.committer import Committer, Result
from resolute_worker.cursors import Cursors
from resolute_worker.heartbeats import Heartbeats
from resolute_worker.hooking import HookCaller
from resolute_worker.jobs import Job, Stop
from resolute_worker.limiter import Limiter
from resolute_worker.objects import JobData, Objects
from resolute_worker.offers import Offers
from resolute_worker.paging import Pages
from resolute_worker.places import Places
from resolute_worker.queries import Queries
from resolute_worker.remote import RemoteOutputs
from resolute_worker.shared import SharedPage
from resolute_worker.slots import Slots

log = logging.getLogger(__name__)

_encode = msgspec.msgpack.Encoder().encode

_NONE: list[bytes] = []
HOOK_GRACE = 5.0  # s that a process whose hook holds the GIL has beyond the time of hooks

UNREAD_DELAY_MS = 1000  # until a node whose input could not be read is handed out again

OVERRUN = (Stop.TIMEOUT, Stop.SILENCE)

JobKey = tuple[str, int, int]


class Runner:
    """What runs in this process, by (flow, seq, index)."""

    def __init__(
        self,
        store: Store,
        process: str,
        flows: Mapping[str, Flow[Any, Any]],
        slots: Slots,
        page: SharedPage,
        nodes: Mapping[str, Node[Any, Any]] | None = None,
        storage: Storage | None = None,
    ) -> None:
        self._store = store
        self._objects = Objects(store, storage)
        self._process = process
        self.offers = Offers(store, flows.values(), nodes or {})
        self._slots = slots
        self._page = page
        self._reader = SyncReader(store)
        self._thread_reader = SyncReader(store)
        self._threads = ThreadPoolExecutor(slots.size, thread_name_prefix="node")
        self.hooks = HookCaller(slots.size)
        self._cursors = Cursors(store, self._in_thread)
        self._pages = Pages(store, self._objects, self._cursors, self._keep, self._in_thread)
        self.queries = Queries(store, self.offers, self._outputs_in_thread)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()  # of the loop
        self._side_tasks: set[asyncio.Task[None]] = set()
        self.jobs: dict[JobKey, Job] = {}
        self._beats = Heartbeats(store, process, page, self._spawn)
        self.committer = Committer(store, process, self._settled)
        self.places = Places(store, process, page.lease)
        self._limiter = Limiter(
            store,
            self.places,
            page.lease,
            self._start,
            self.report,
            self._fail,
            lambda job: self._spawn(self._admit([job])),
        )

    @property
    def is_fenced(self) -> bool:
        """Whether nothing may be begun: the lease may be over before we can commit."""
        return self._page.is_fenced

    def bound_for(self, held: Held) -> Bound | None:
        """The node that an entry is for; None where it cannot be run here.

        Raises LookupError where the plan has no such node.
        """
        return self.offers.bound_for(held.entry)

    def adopt(self, held: Held, bound: Bound) -> Job | None:
        """A job in a slot of its own; None where it is here already or no slot is free."""
        entry = held.entry
        key = (entry.flow, entry.seq, entry.index)
        if key in self.jobs:
            return None
        slot = self._slots.take()
        if slot is None:
            return None
        job = Job(held, bound, slot, bound.fields(entry))
        self.jobs[key] = job
        return job

    async def begin(self, jobs: Sequence[Job]) -> None:
        """Claim jobs of one stream and start those that may start."""
        for batch in nodes.chunks(jobs):
            if self.is_fenced:
                for job in batch:
                    self.report(job, Return(job.held, job.queue))
                continue
            try:
                answers = await nodes.begin(
                    self._store, self._process, [(job.held, job.loaded) for job in batch]
                )
            except Exception:
                # They stay pending here, and are begun when that is looked at next.
                log.exception("beginning %d nodes", len(batch))
                for job in batch:
                    self._settled(job, ok=False)
                continue
            self._begun(batch, answers)

    def _begun(self, jobs: Sequence[Job], answers: Sequence[Begun]) -> None:
        limited: list[Job] = []
        for job, begun in zip(jobs, answers, strict=True):
            if begun.code != Code.OK:
                if begun.code == Code.ERROR:
                    self._spawn(self._bury(job.held))
                self._settled(job, ok=False)
                continue
            job.begun = begun
            job.is_slow = attempt.is_slow(job.bound, begun.values)
            if job.is_slow:
                self._spawn(self._read_slowly(job))
                continue
            try:
                job.value = self._input(job, self._reader)
            except BaseException as error:  # SystemExit too: it is the user's function
                self._input_failed(job, error)
                continue
            if job.bound.is_limited:
                limited.append(job)
            else:
                self._start(job)
        if limited:
            self._spawn(self._admit(limited))

    async def _read_slowly(self, job: Job) -> None:
        """Make the input in a thread, since it reads from the storage, and go on."""
        try:
            job.value = await self._in_thread(lambda: self._input(job, self._thread_reader))
        except BaseException as error:
            self._input_failed(job, error)
            return
        if job.bound.is_limited:
            await self._admit([job])
        else:
            self._start(job)

    def _input(self, job: Job, reader: SyncReader) -> Any:
        remote = self._remote(job, reader)
        return attempt.input_value(job.bound, job.held.entry, job.loaded, job.values, remote)

    def _input_failed(self, job: Job, error: BaseException) -> None:
        if isinstance(error, AWAY):
            self._return_unread(job, error)
        else:
            self._fail(job, error)

    async def _in_thread(self, call: Callable[[], Any]) -> Any:
        """What a blocking call of ours, or a function of the user's, returns; or what it raises."""
        here = copy_context()
        value, error = await self._loop.run_in_executor(
            self._threads, lambda: here.run(_call, call)
        )
        if error is not None:
            raise error
        return value

    def _return_unread(self, job: Job, error: Exception) -> None:
        """Hand a node back whose input or predicate could not be read, for a little later."""
        log.warning("reading for %s of run %s: %s", job.bound.plan.name, job.held.entry.flow, error)
        self.report(job, Return(job.held, job.queue, delay=UNREAD_DELAY_MS))

    async def _bury(self, held: Held) -> None:
        """An entry that cannot be begun, since the node's record is damaged, is a dead letter."""
        log.error("node %s.%s of run %s cannot be begun: its record is damaged",
                  held.entry.seq, held.entry.index, held.entry.flow)  # fmt: skip
        with contextlib.suppress(ResoluteError):
            entries = [(held.id, "damaged record")]
            await dead.bury_entries(self._store, held.partition, held.queue, entries)

    async def _admit(self, jobs: Sequence[Job]) -> None:
        try:
            await self._limiter.admit(jobs)
        except Exception:
            log.exception("limits of %d nodes", len(jobs))
            for job in jobs:
                if job.task is None and not job.is_reported:
                    self.report(job, Return(job.held, job.queue, delay=1000))

    def _remote(self, job: Job, reader: SyncReader) -> RemoteOutputs:
        return self._outputs_of(job.held, job.bound.flow, reader)

    def _outputs_in_thread(self, held: Held, flow: Flow[Any, Any]) -> RemoteOutputs:
        return self._outputs_of(held, flow, self._thread_reader)

    def _outputs_of(self, held: Held, flow: Flow[Any, Any], reader: SyncReader) -> RemoteOutputs:
        cursors_key = self._store.keys.meta.cursors
        whole = self._objects.whole
        return RemoteOutputs(reader, held.partition, held.entry.flow, flow, cursors_key, whole)

    def _start(self, job: Job) -> None:
        """Run the function of an admitted job in its slot."""
        if job.is_reported:
            return
        if job.is_stopped:
            self._finish_stopped(job)
            return
        if job.bound.places and self.is_fenced:  # its places may be another's by now
            self.report(job, Return(job.held, job.queue))
            return
        if job.bound.flow.hooks.before_node is None:
            self._begin_timeout(job)
        job.task = self._loop.create_task(self._execute(job))

    def _begin_timeout(self, job: Job) -> None:
        timeout = job.bound.plan.timeout_ms / 1000
        self._occupy(job, timeout)
        job.timer = self._loop.call_later(timeout, job.request_stop, Stop.TIMEOUT)
        self._beats.listen(job, timeout)

    def _occupy(self, job: Job, timeout: float) -> None:
        """Tell the supervisor what runs in the job's slot, and for how many s more."""
        held = job.held
        label = f"{held.queue} {held.id}".encode()
        self._page.occupy(job.slot, time.monotonic() + timeout, held.partition.number, label)

    async def _call_hooks(self, job: Job, calls: Sequence[Call]) -> None:
        self._occupy(job, self.hooks.seconds + HOOK_GRACE)
        await self.hooks.call(calls, job.bound.plan.name)

    async def _execute(self, job: Job) -> None:
        bound = job.bound
        job.is_running = True
        if job.is_stopped:
            self._finish_stopped(job)
            return
        try:
            if bound.flow.hooks.before_node is not None:
                await self._call_hooks(job, calls_before(job.held.entry, bound, time.time()))
                if job.is_stopped:  # nobody cancels the task of a thread
                    raise asyncio.CancelledError
                self._begin_timeout(job)
            job.called = time.time()
            job.costs = context.enter(
                job.held.entry, bound, partial(self._pause, job), partial(self._beats.beat, job),
                bound.progress(job.held.entry, job.values),
            )  # fmt: skip
            references.access.set(JobData(self._objects, job, self._loop))
            value = await self._called(job)
            self._returned(job)
            if isinstance(value, PageTurn):
                self.report(job, value)
                return
            output, arg = attempt.encode_output(bound, value, self._objects.most)
            kept = output
            if bound.is_kept(output):
                kept = await self._keep(job, output)
            undo = None
            if bound.compensation is not None:
                undo = await self._undo_input(job, output, kept)
        except AWAY as error:
            self._return_unread(job, error)
        except BaseException as error:
            # Also SystemExit and KeyboardInterrupt: a node ends its attempt, never the worker.
            self._ended_badly(job, error)
        else:
            self.report(job, Completion(job.held, job.key, kept, undo, arg, pages=self._kept(job)))

    def _returned(self, job: Job) -> None:
        """Its function is over: no heartbeat is expected any more. Raises NodeTimeout."""
        if job.pulse is not None:
            self._beats.stop(job)
            self._occupy(job, max(0.0, job.pulse.must_end - time.monotonic()))
        if job.stop in OVERRUN:
            raise _overrun(job)

    def _kept(self, job: Job) -> int | None:
        """How many pages of it are kept; None where nothing is that says how far it has come."""
        entry, values = job.held.entry, job.values
        has_told = job.progress is not None or job.bound.progress(entry, values) is not None
        return 0 if job.pages is None and has_told else job.pages

    async def _called(self, job: Job) -> Any:
        """What the user's function returns."""
        bound = job.bound
        if isinstance(bound.binding, Lister):
            return await self._keep_items(job)
        if isinstance(bound.binding, Saver):
            return await self._cursors.save(job, bound.binding)
        if isinstance(bound.binding, Notice):
            calls = calls_of_notice(job.held.entry, bound, bound.binding, job.values)
            return await self.hooks.call(calls, bound.plan.name)
        if bound.pager is not None:
            return await self._pages.fetch(job, bound.pager)
        if bound.is_threaded or (job.is_slow and isinstance(bound.binding, Question)):
            return await self._in_thread(lambda: bound.call(job.value))
        if isinstance(bound.binding, Question):
            return bound.call(job.value)
        return await bound.call(job.value)

    async def _keep(self, job: Job, data: bytes) -> bytes:
        """Put a result into the storage, however long it takes: the timeout stands still."""
        left = 0.0
        if job.timer is not None:
            left = max(0.0, job.timer.when() - self._loop.time())
            job.timer.cancel()
        self._occupy(job, math.inf)
        kept = await self._objects.keep(job, data)
        self._occupy(job, left)
        job.timer = self._loop.call_later(left, job.request_stop, Stop.TIMEOUT)
        return kept

    async def _keep_items(self, job: Job) -> int:
        """Keep the items of the step that comes next, a page at a time; how many there are."""
        count, limit, most = 0, job.bound.flow.max_payload, self._objects.most

        def pages() -> Iterator[list[bytes]]:
            listed = job.bound.call(job.value)
            items = attempt.encoded_items(job.bound, job.held.entry.flow, listed, most)
            yield from nodes.chunks(items, len, nodes.ITEMS)

        found = pages()
        while batch := await self._next_page(job, found):
            kept = [await self._keep(job, one) if len(one) > limit else one for one in batch]
            code = await nodes.store_items(self._store, self._process, job.held, count, kept)
            if code != Code.OK:
                job.request_stop(Stop.LOST)
                raise asyncio.CancelledError
            count += len(batch)
        return count

    async def _next_page(self, job: Job, pages: Iterator[list[bytes]]) -> list[bytes]:
        """Some items that the user's function lists, none at the end."""
        if job.is_slow:
            return await self._in_thread(lambda: next(pages, _NONE))
        return next(pages, _NONE)

    async def _undo_input(self, job: Job, output: bytes, kept: bytes) -> bytes | None:
        """The input of the compensation. The node has run, so what that reads is waited for."""
        failures = 0
        while True:
            try:
                made = await self._make_undo_input(job, output)
                break
            except AWAY as error:
                name, flow = job.bound.plan.name, job.held.entry.flow
                log.warning("reading for the compensation of %s of run %s: %s", name, flow, error)
            failures += 1
            await asyncio.sleep(backoff(failures))
            if job.is_stopped:  # nobody cancels the task of a thread
                raise asyncio.CancelledError
        if made is None:
            return None
        if made.data is output and kept is not output:
            return made.pack(kept)
        if self._objects.storage is not None and made.is_stored(job.bound, job.values):
            return made.pack(await self._keep(job, made.data))
        return made.pack()

    async def _make_undo_input(self, job: Job, output: bytes) -> UndoInput | None:
        """In a thread where it may block: its function may ask for any output, and for cursors."""
        bound, most = job.bound, self._objects.most
        undo = compensation_of(bound.binding)
        is_asked = isinstance(undo, Node) and callable(undo.input)
        if not is_asked or (self._objects.storage is None and bound.flow.cursors is None):
            return undo_input(bound, output, self._remote(job, self._reader), most)
        remote = self._remote(job, self._thread_reader)
        return await self._in_thread(lambda: undo_input(bound, output, remote, most))

    def _ended_badly(self, job: Job, error: BaseException) -> None:
        is_cut_short = not job.bound.is_threaded or isinstance(error, asyncio.CancelledError)
        if job.is_stopped and is_cut_short:
            self._finish_stopped(job)  # whatever it answered its cancellation with
            return
        try:
            self._fail(job, error)
        except Exception as broken:
            # An exception that cannot even be looked at: a subclass of ours, half made.
            info = ErrorInfo.of(broken, job.bound.plan.name)
            self._report_failure(job, info, None)

    def _finish_stopped(self, job: Job) -> None:
        match job.stop:
            case Stop.TIMEOUT | Stop.SILENCE:
                self._fail(job, _overrun(job))
            case Stop.CANCEL:
                info = ErrorInfo("Cancelled", "the run was cancelled", node=job.bound.plan.name)
                self._report_failure(job, info, None)
            case Stop.HAND_BACK:
                self.report(job, Return(job.held, job.queue))
            case _:
                self._settled(job, ok=False)

    def _fail(self, job: Job, error: BaseException) -> None:
        """Report a failed attempt, with a retry if the policy grants one."""
        plan = job.bound.plan
        try:
            found = judging.judge(job.bound, job.held.entry.attempt, error)
        except BaseException as broken:  # its classifier, which is the user's
            self._report_failure(job, ErrorInfo.of(broken, plan.name), None)
            return
        if found.pause is not None and plan.limits:
            self._spawn(self._limiter.pause(job, found.pause))
        info = ErrorInfo.of(error, plan.name)
        self._report_failure(job, info, found.delay, is_fatal=found.is_fatal)

    def _pause(self, job: Job, seconds: float) -> None:
        """The node's function asks for a pause of its limits, from whatever thread.

        From the loop's own it is under way before the outcome is: who follows finds it.
        """
        if not job.bound.plan.limits:
            return
        if threading.get_ident() == self._thread:
            self._spawn(self._limiter.pause(job, seconds))
        else:
            self._loop.call_soon_threadsafe(self._pause, job, seconds)

    def _report_failure(
        self, job: Job, info: ErrorInfo, delay: int | None, *, is_fatal: bool = False
    ) -> None:
        forgives = job.bound.plan.best_effort and not is_fatal
        self.report(job, Failure(job.held, job.key, job.queue, _encode(info), delay, forgives))

    def report(self, job: Job, result: Result) -> None:
        """Hand the outcome of a job to the committer; its slot is free once that is answered."""
        self._leave_slot(job)
        job.is_reported = True
        if job.costs is not None:
            result.costs = job.costs.packed()
        calls = self._calls_after(job, result)
        has_rest = self._beats.has_rest(job) and not isinstance(result, Completion)
        if calls or has_rest:
            self._spawn(self._add_after(job, result, calls, has_rest))
        else:
            self.committer.add(job, result)

    def _calls_after(self, job: Job, result: Result) -> Sequence[Call]:
        entry, bound = job.held.entry, job.bound
        if bound.flow.hooks is NO_HOOKS:
            return ()
        spent = calls_of_costs(entry, bound, job.costs.entries if job.costs else ())
        match result:
            case Return() | PageTurn():
                return spent
            case Completion():
                return spent + calls_after(entry, bound, job.called, time.time())
            case Failure(error=error, delay=delay):
                now = time.time()
                return spent + calls_after(entry, bound, job.called, now, error, delay)

    async def _add_after(
        self, job: Job, result: Result, calls: Sequence[Call], has_rest: bool
    ) -> None:
        """What the next attempt is to know of its progress, and the hooks, come first.

        Whoever dies between the hooks and the commit has the node run again, and them called.

        This is no part of the job's task, which may be cancelled: the outcome stays what it is.
        """
        try:
            if has_rest:
                await self._beats.keep_rest(job)
            if calls:
                await self._call_hooks(job, calls)
        finally:
            self._leave_slot(job)
            self.committer.add(job, result)

    def _leave_slot(self, job: Job) -> None:
        self._page.release(job.slot)
        if job.timer is not None:
            job.timer.cancel()
            job.timer = None
        self._beats.stop(job)

    def _settled(self, job: Job, ok: bool) -> None:
        entry = job.held.entry
        key = (entry.flow, entry.seq, entry.index)
        if job.stored and not ok:
            self._spawn(self._objects.clean(job))
        if self.jobs.get(key) is job:
            del self.jobs[key]
            self.places.leave(job)
            self._leave_slot(job)
            self._slots.release(job.slot)
            # Its context has the job: together they would be left to the garbage collector.
            job.task = None

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._side_tasks.add(task)
        task.add_done_callback(self._side_tasks.discard)

    def cancel_nodes(self, names: Sequence[str]) -> None:
        """Stop the nodes named ``flow|seq.index|token`` of cancelled runs.

        Of those that are asked for, what nobody runs here is handed back.
        """
        for name in names:
            if (held := nodes.asked(self._store, name)) is not None:
                self._spawn(self._disown(held))
                continue
            flow, place, token = name.split("|")
            seq, _, index = place.partition(".")
            job = self.jobs.get((flow, int(seq), int(index)))
            if job is not None and job.held.entry.token == token:
                job.request_stop(Stop.CANCEL)

    async def _disown(self, held: Held) -> None:
        entry = held.entry
        if (entry.flow, entry.seq, entry.index) in self.jobs:
            return
        log.warning("node %s.%s of run %s is claimed here and does not run: it is handed back",
                    entry.seq, entry.index, entry.flow)  # fmt: skip
        with contextlib.suppress(ResoluteError):  # it is asked for again
            back = Return(held, held.lane)
            await nodes.give_back(self._store, self._process, [back])

    def stop_all(self, why: Stop) -> None:
        """Stop everything that can be stopped."""
        for job in list(self.jobs.values()):
            job.request_stop(why)

    async def reaffirm(self) -> None:
        """Begin again what runs here, after a reconnect: a claim that is gone ends its job.

        The server may have forgotten a second, and with it which places were taken or given back.
        """
        by_stream: dict[str, list[Job]] = defaultdict(list)
        overtaken: list[Job] = []
        for job in self.jobs.values():
            if job.task is not None and not job.is_reported:
                by_stream[job.held.stream].append(job)
        for jobs in by_stream.values():
            for batch in nodes.chunks(jobs):
                answers = await nodes.begin(
                    self._store, self._process, [(job.held, ()) for job in batch]
                )
                for job, begun in zip(batch, answers, strict=True):
                    if job.is_reported:
                        overtaken.append(job)
                    elif begun.code != Code.OK:
                        log.warning("lost the claim of %s of run %s: %s", job.bound.plan.name,
                                    job.held.entry.flow, begun.code)  # fmt: skip
                        job.request_stop(Stop.LOST)
        await self._let_go(overtaken)
        await self.places.look()

    async def _let_go(self, jobs: Sequence[Job]) -> None:
        """Hand back what was begun again after its outcome had been refused.

        The server had forgotten the claim when the outcome came, and with the refusal its entry
        went: nobody else would ever come by. Where the outcome was taken, this is refused.
        """
        await self.committer.drain()
        for job in jobs:
            entry = job.held.entry
            if (entry.flow, entry.seq, entry.index) not in self.jobs:
                back = Return(job.held, job.queue)
                await nodes.give_back(self._store, self._process, [back])

    async def wait_idle(self) -> None:
        """Wait until no job is left and every outcome was answered."""
        while self.jobs:
            await self.committer.drain()
            await self._slots.wait(min(self._slots.size, self._slots.free + 1))
        await self.places.drain()

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.hooks.close()
        self.queries.close()
        self._reader.close()
        self._thread_reader.close()


def _overrun(job: Job) -> NodeTimeout:
    """The error of one that was stopped since it took too long, or was silent for too long."""
    told = judging.silence_error if job.stop is Stop.SILENCE else judging.timeout_error
    return told(job.bound.plan)


def _call(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """What a function returns, or raises: a future would not take a StopIteration."""
    try:
        return call(), None
    except BaseException as error:
        return None, error
