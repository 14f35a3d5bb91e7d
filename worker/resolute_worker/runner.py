"""Running jobs: begin a batch, resolve inputs, pass the limits, call the function, report."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from resolute.engine import attempt, judging
from resolute.engine.bound import Bound
from resolute.engine.hooking import (
    Call,
    calls_after,
    calls_of_costs,
)
from resolute.engine.preloaded import AWAY
from resolute.errors import ErrorInfo, ResoluteError
from resolute.model.flow import Flow
from resolute.model.hooks import NO_HOOKS
from resolute.model.nodes import Node
from resolute.status import Code
from resolute.storage import Storage
from resolute.store import dead, nodes
from resolute.store.nodes import Begun, Completion, Failure, Held, PageTurn, Return
from resolute.store.store import Store
from resolute_worker.committer import Committer, Result
from resolute_worker.deadlines import Deadlines
from resolute_worker.executor import HOOK_GRACE, Executor, overrun
from resolute_worker.heartbeats import Heartbeats
from resolute_worker.hooking import HookCaller
from resolute_worker.jobs import Job, Stop
from resolute_worker.limiter import Limiter
from resolute_worker.objects import Objects
from resolute_worker.offers import Offers
from resolute_worker.places import Places
from resolute_worker.queries import Queries
from resolute_worker.remote import Readers, RemoteOutputs
from resolute_worker.shared import SharedPage
from resolute_worker.slots import Slots
from resolute_worker.threads import Threads

log = logging.getLogger(__name__)

_encode = msgspec.msgpack.Encoder().encode


UNREAD_DELAY_MS = 1000  # until a node whose input could not be read is handed out again

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
        self._readers = Readers(store, self._objects.whole)
        self._threads = Threads(slots.size)
        self.hooks = HookCaller(slots.size)
        self.queries = Queries(store, self.offers, self._readers.in_thread)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()  # of the loop
        self._side_tasks: set[asyncio.Task[None]] = set()
        self.jobs: dict[JobKey, Job] = {}
        self._beats = Heartbeats(store, process, page, self._spawn)
        self._deadlines = Deadlines(page, self._beats)
        self._executor = Executor(
            store, process, self._objects, self._readers, self._threads, self.hooks, self._beats,
            self._deadlines, self,
        )  # fmt: skip
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
                job.value = self._input(job, self._readers.on_loop)
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
            job.value = await self._threads.run(lambda: self._input(job, self._readers.in_thread))
        except BaseException as error:
            self._input_failed(job, error)
            return
        if job.bound.is_limited:
            await self._admit([job])
        else:
            self._start(job)

    def _input(self, job: Job, remote_of: Callable[[Held, Flow[Any, Any]], RemoteOutputs]) -> Any:
        remote = remote_of(job.held, job.bound.flow)
        return attempt.input_value(job.bound, job.held.entry, job.loaded, job.values, remote)

    def _input_failed(self, job: Job, error: BaseException) -> None:
        if isinstance(error, AWAY):
            self.return_unread(job, error)
        else:
            self._fail(job, error)

    def return_unread(self, job: Job, error: Exception) -> None:
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

    def _start(self, job: Job) -> None:
        """Run the function of an admitted job in its slot."""
        if job.is_reported:
            return
        if job.is_stopped:
            self.finish_stopped(job)
            return
        if job.bound.places and self.is_fenced:  # its places may be another's by now
            self.report(job, Return(job.held, job.queue))
            return
        self._executor.start(job)

    async def _call_hooks(self, job: Job, calls: Sequence[Call]) -> None:
        self._deadlines.occupy(job, self.hooks.seconds + HOOK_GRACE)
        await self.hooks.call(calls, job.bound.plan.name)

    def ended_badly(self, job: Job, error: BaseException) -> None:
        is_cut_short = not job.bound.is_threaded or isinstance(error, asyncio.CancelledError)
        if job.is_stopped and is_cut_short:
            self.finish_stopped(job)  # whatever it answered its cancellation with
            return
        try:
            self._fail(job, error)
        except Exception as broken:
            # An exception that cannot even be looked at: a subclass of ours, half made.
            info = ErrorInfo.of(broken, job.bound.plan.name)
            self._report_failure(job, info, None)

    def finish_stopped(self, job: Job) -> None:
        match job.stop:
            case Stop.TIMEOUT | Stop.SILENCE:
                self._fail(job, overrun(job))
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

    def pause(self, job: Job, seconds: float) -> None:
        """The node's function asks for a pause of its limits, from whatever thread.

        From the loop's own it is under way before the outcome is: who follows finds it.
        """
        if not job.bound.plan.limits:
            return
        if threading.get_ident() == self._thread:
            self._spawn(self._limiter.pause(job, seconds))
        else:
            self._loop.call_soon_threadsafe(self.pause, job, seconds)

    def _report_failure(
        self, job: Job, info: ErrorInfo, delay: int | None, *, is_fatal: bool = False
    ) -> None:
        forgives = job.bound.plan.best_effort and not is_fatal
        self.report(job, Failure(job.held, job.key, job.queue, _encode(info), delay, forgives))

    def report(self, job: Job, result: Result) -> None:
        """Hand the outcome of a job to the committer; its slot is free once that is answered."""
        self._deadlines.end(job)
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
            self._deadlines.end(job)
            self.committer.add(job, result)

    def _settled(self, job: Job, ok: bool) -> None:
        entry = job.held.entry
        key = (entry.flow, entry.seq, entry.index)
        if job.stored and not ok:
            self._spawn(self._objects.clean(job))
        if self.jobs.get(key) is job:
            del self.jobs[key]
            self.places.leave(job)
            self._deadlines.end(job)
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
        looking = asyncio.create_task(self.places.look())
        try:
            await self._begin_again()
        finally:
            await looking

    async def _begin_again(self) -> None:
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
        if overtaken:
            await self._let_go(overtaken)

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
        self._threads.close()
        self.hooks.close()
        self.queries.close()
        self._readers.close()
