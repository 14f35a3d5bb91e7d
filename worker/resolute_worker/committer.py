"""Outcomes are gathered and sent together: one call of a script for all that a tick brought."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec

from resolute.errors import ErrorInfo, ResoluteError
from resolute.status import Code
from resolute.store import dead, nodes
from resolute.store.store import Store
from resolute_worker.jobs import Job

log = logging.getLogger(__name__)

Result = nodes.Completion | nodes.Failure | nodes.Return | nodes.PageTurn
R = TypeVar("R", nodes.Completion, nodes.Failure, nodes.Return, nodes.PageTurn)
Send = Callable[[Store, str, Sequence[R]], Awaitable[list[str]]]

MAX_IN_FLIGHT = 2  # calls of one stream; meanwhile outcomes gather


class Committer:
    """Sends outcomes and tells `on_settled` when a job has left this process."""

    def __init__(self, store: Store, process: str, on_settled: Callable[[Job, bool], None]) -> None:
        self._store = store
        self._process = process
        self._on_settled = on_settled
        self._waiting: dict[str, list[tuple[Job, Result]]] = defaultdict(list)
        self._in_flight: dict[str, int] = defaultdict(int)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def add(self, job: Job, result: Result) -> None:
        """Send this outcome at the end of the tick."""
        stream = job.held.stream
        batch = self._waiting[stream]
        batch.append((job, result))
        if len(batch) == 1 and self._in_flight[stream] < MAX_IN_FLIGHT:
            self._loop.call_soon(self._flush, stream)

    async def drain(self) -> None:
        """Wait until everything that was added has been answered."""
        while self._tasks or any(self._waiting.values()):
            for stream in [s for s, batch in self._waiting.items() if batch]:
                self._flush(stream)
            if self._tasks:
                await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)

    def _flush(self, stream: str) -> None:
        batch = self._waiting[stream]
        if not batch or self._in_flight[stream] >= MAX_IN_FLIGHT:
            return
        self._waiting[stream] = []
        self._in_flight[stream] += 1
        task = self._loop.create_task(self._send(stream, batch))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _send(self, stream: str, batch: Sequence[tuple[Job, Result]]) -> None:
        try:
            for kind, send in _SENDERS:
                chosen = [pair for pair in batch if isinstance(pair[1], kind)]
                for part in nodes.chunks(chosen, _size):
                    await self._send_part(send, part)
        finally:
            self._in_flight[stream] -= 1
            self._flush(stream)

    async def _send_part(self, send: Any, part: Sequence[tuple[Job, Result]]) -> None:
        try:
            codes = await send(self._store, self._process, [result for _, result in part])
        except Exception as error:
            # Whatever is wrong with one outcome, the others are sent.
            if len(part) > 1:
                for pair in part:
                    await self._send_part(send, [pair])
                return
            codes = [await self._send_refusal(*part[0], error)]
        for (job, _), code in zip(part, codes, strict=True):
            if code == Code.ERROR:
                await self._bury(job)
            if code != Code.OK:
                log.info("outcome of %s of run %s refused: %s", job.bound.plan.name,
                         job.held.entry.flow, code)  # fmt: skip
            self._on_settled(job, code == Code.OK)

    async def _send_refusal(self, job: Job, result: Result, error: Exception) -> str:
        """An outcome that cannot be sent fails its node for good, with what went wrong."""
        log.error("outcome of %s of run %s: %s", job.bound.plan.name, job.held.entry.flow, error)
        info = msgspec.msgpack.encode(ErrorInfo.of(error, job.bound.plan.name))
        key, best_effort = job.key, job.bound.plan.best_effort
        failure = nodes.Failure(job.held, key, job.queue, info, None, best_effort, result.costs)
        try:
            return (await nodes.fail(self._store, self._process, [failure]))[0]
        except Exception as again:
            log.error("and its failure: %s; it stays pending and is begun again", again)
            return ""

    async def _bury(self, job: Job) -> None:
        """A node whose run is damaged, so that no outcome can be committed, is a dead letter."""
        held = job.held
        log.error("no outcome of %s of run %s can be committed: the run is damaged",
                  job.bound.plan.name, held.entry.flow)  # fmt: skip
        with contextlib.suppress(ResoluteError):  # else it is begun again, and comes here again
            entries = [(held.id, "damaged run")]
            await dead.bury_entries(self._store, held.partition, held.queue, entries)


_SENDERS: tuple[tuple[type[Result], Any], ...] = (
    (nodes.Completion, nodes.complete),
    (nodes.Failure, nodes.fail),
    (nodes.Return, nodes.give_back),
    (nodes.PageTurn, nodes.turn_pages),
)


def _size(pair: tuple[Job, Result]) -> int:
    result = pair[1]
    match result:
        case nodes.Completion():
            return len(result.output) + len(result.undo_input or b"")
        case nodes.Failure():
            return len(result.error)
        case nodes.PageTurn():
            return len(result.page)
        case _:
            return 0
