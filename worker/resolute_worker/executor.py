"""One attempt: its function is called, and what that returns becomes an outcome."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

from resolute.engine import attempt, context, judging
from resolute.engine.hooking import calls_before, calls_of_notice
from resolute.engine.preloaded import AWAY
from resolute.engine.undoing import UndoInput, undo_input
from resolute.errors import NodeTimeout
from resolute.model import references
from resolute.model.flow import Lister, Notice, Question, Saver, compensation_of
from resolute.model.nodes import Node
from resolute.status import Code
from resolute.store import nodes
from resolute.store.connection import backoff
from resolute.store.nodes import Completion, PageTurn
from resolute.store.store import Store
from resolute_worker.cursors import Cursors
from resolute_worker.deadlines import Deadlines
from resolute_worker.heartbeats import Heartbeats
from resolute_worker.hooking import HookCaller
from resolute_worker.jobs import Job, Stop
from resolute_worker.objects import JobData, Objects
from resolute_worker.paging import Pages
from resolute_worker.remote import Readers
from resolute_worker.threads import Threads

log = logging.getLogger(__name__)

_NONE: list[bytes] = []
HOOK_GRACE = 5.0  # s that a process whose hook holds the GIL has beyond the time of hooks
OVERRUN = (Stop.TIMEOUT, Stop.SILENCE)


class Outcomes(Protocol):
    """Who is told what came of an attempt."""

    def report(self, job: Job, result: Completion | PageTurn) -> None: ...

    def finish_stopped(self, job: Job) -> None:
        """It was stopped from outside."""
        ...

    def ended_badly(self, job: Job, error: BaseException) -> None:
        """Its function raised, or what it returned cannot be its output."""
        ...

    def return_unread(self, job: Job, error: Exception) -> None:
        """What it reads cannot be read for now: no failure of its own."""
        ...

    def pause(self, job: Job, seconds: float) -> None:
        """Its function asks for a pause of its limits, in any thread."""
        ...


class Executor:
    """Runs jobs, each in a task of its own, and tells `outcomes`."""

    def __init__(
        self,
        store: Store,
        process: str,
        objects: Objects,
        readers: Readers,
        threads: Threads,
        hooks: HookCaller,
        heartbeats: Heartbeats,
        deadlines: Deadlines,
        outcomes: Outcomes,
    ) -> None:
        self._store = store
        self._process = process
        self._objects = objects
        self._readers = readers
        self._threads = threads
        self._hooks = hooks
        self._heartbeats = heartbeats
        self._deadlines = deadlines
        self._outcomes = outcomes
        self._cursors = Cursors(store, threads.run)
        self._pages = Pages(store, objects, self._cursors, self._keep, threads.run)
        self._loop = asyncio.get_running_loop()

    def start(self, job: Job) -> None:
        """Run the function of an admitted job in its slot."""
        if job.bound.flow.hooks.before_node is None:
            self._deadlines.begin(job)
        job.task = self._loop.create_task(self._execute(job))

    async def _execute(self, job: Job) -> None:
        bound = job.bound
        job.is_running = True
        if job.is_stopped:
            self._outcomes.finish_stopped(job)
            return
        try:
            if bound.flow.hooks.before_node is not None:
                await self._call_hooks_before(job)
            job.called = time.time()
            job.costs = context.enter(
                job.held.entry, bound, partial(self._outcomes.pause, job),
                partial(self._heartbeats.beat, job), bound.progress(job.held.entry, job.values),
            )  # fmt: skip
            references.access.set(JobData(self._objects, job, self._loop))
            value = await self._called(job)
            self._deadlines.returned(job)
            if job.stop in OVERRUN:
                raise overrun(job)
            if isinstance(value, PageTurn):
                self._outcomes.report(job, value)
                return
            output, arg = attempt.encode_output(bound, value, self._objects.most)
            kept = output
            if bound.is_kept(output):
                kept = await self._keep(job, output)
            undo = None
            if bound.compensation is not None:
                undo = await self._undo_input(job, output, kept)
        except AWAY as error:
            self._outcomes.return_unread(job, error)
        except BaseException as error:
            # Also SystemExit and KeyboardInterrupt: a node ends its attempt, never the worker.
            self._outcomes.ended_badly(job, error)
        else:
            done = Completion(job.held, job.key, kept, undo, arg, pages=_pages_of(job))
            self._outcomes.report(job, done)

    async def _call_hooks_before(self, job: Job) -> None:
        calls = calls_before(job.held.entry, job.bound, time.time())
        self._deadlines.occupy(job, self._hooks.seconds + HOOK_GRACE)
        await self._hooks.call(calls, job.bound.plan.name)
        if job.is_stopped:  # nobody cancels the task of a thread
            raise asyncio.CancelledError
        self._deadlines.begin(job)

    async def _called(self, job: Job) -> Any:
        """What the user's function returns."""
        bound = job.bound
        if isinstance(bound.binding, Lister):
            return await self._keep_items(job)
        if isinstance(bound.binding, Saver):
            return await self._cursors.save(job, bound.binding)
        if isinstance(bound.binding, Notice):
            calls = calls_of_notice(job.held.entry, bound, bound.binding, job.values)
            return await self._hooks.call(calls, bound.plan.name)
        if bound.pager is not None:
            return await self._pages.fetch(job, bound.pager)
        if bound.is_threaded or (job.is_slow and isinstance(bound.binding, Question)):
            return await self._threads.run(lambda: bound.call(job.value))
        if isinstance(bound.binding, Question):
            return bound.call(job.value)
        return await bound.call(job.value)

    async def _keep(self, job: Job, data: bytes) -> bytes:
        """Put a result into the storage, however long it takes: the timeout stands still."""
        with self._deadlines.standing_still(job):
            return await self._objects.keep(job, data)

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
            return await self._threads.run(lambda: next(pages, _NONE))
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
            return undo_input(bound, output, self._readers.on_loop(job.held, bound.flow), most)
        remote = self._readers.in_thread(job.held, bound.flow)
        return await self._threads.run(lambda: undo_input(bound, output, remote, most))


def overrun(job: Job) -> NodeTimeout:
    """The error of one that was stopped since it took too long, or was silent for too long."""
    told: Callable[..., NodeTimeout] = judging.timeout_error
    if job.stop is Stop.SILENCE:
        told = judging.silence_error
    return told(job.bound.plan)


def _pages_of(job: Job) -> int | None:
    """How many pages of it are kept; None where nothing is that says how far it has come."""
    entry, values = job.held.entry, job.values
    has_told = job.progress is not None or job.bound.progress(entry, values) is not None
    return 0 if job.pages is None and has_told else job.pages
