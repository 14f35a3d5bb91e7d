"""Reading and saving cursors: in Redis, or in the backend of a flow."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from resolute.engine.bound import STARTED
from resolute.model import codec
from resolute.model.cursors import SavedBy
from resolute.model.flow import Flow, Saver
from resolute.store import cursors
from resolute.store.store import Store
from resolute_worker.jobs import Job

InThread = Callable[[Callable[[], Any]], Awaitable[Any]]


class Cursors:
    """A backend may block: `in_thread` calls it."""

    def __init__(self, store: Store, in_thread: InThread) -> None:
        self._store = store
        self._in_thread = in_thread

    async def read(self, flow: Flow[Any, Any], name: str) -> bytes | None:
        """The encoded value, None where there is none."""
        backend = flow.cursors
        if backend is None:
            return await cursors.read(self._store, flow.namespace, name)
        return await self._in_thread(lambda: backend.load(flow.namespace, name))

    async def save(self, job: Job, saver: Saver) -> Any:
        """Save what the saver says; if a newer run has saved, its value stays."""
        flow, call = job.bound.flow, job.bound.call
        slow = job.is_slow
        value = await self._in_thread(lambda: call(job.value)) if slow else call(job.value)
        if value is None:
            return None
        name = saver.cursor
        data = codec.encode(value, max_payload=flow.max_payload, what=f"cursor {name}")
        started = int(job.bound.aside(STARTED, job.values) or 0)
        by = SavedBy(started, job.held.entry.flow, job.held.entry.seq)
        backend = flow.cursors
        if backend is None:
            await cursors.save(self._store, flow.namespace, name, by, data)
        else:
            await self._in_thread(lambda: backend.save(flow.namespace, name, data, by))
        return value
