"""Fetching a page: the node is handed out again for the next one, or has all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from resolute.engine import paging
from resolute.errors import MissingOutput
from resolute.model.paging import Page, Pager, PageRequest
from resolute.model.references import is_stub
from resolute.store.nodes import PageTurn
from resolute.store.store import Store
from resolute_worker.cursors import Cursors
from resolute_worker.jobs import Job
from resolute_worker.objects import Objects

TOGETHER = 20  # pages read by one command


class Pages:
    """`keep` puts what is large into the storage; `in_thread` runs what blocks."""

    def __init__(
        self,
        store: Store,
        objects: Objects,
        cursors: Cursors,
        keep: Callable[[Job, bytes], Awaitable[bytes]],
        in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        self._store = store
        self._objects = objects
        self._cursors = cursors
        self._keep = keep
        self._in_thread = in_thread

    async def fetch(self, job: Job, pager: Pager) -> PageTurn | list[Any]:
        """The page that is missing: to be kept, or, if it was the last, the items of all."""
        request = await self._request(job, pager)
        if job.bound.is_threaded:
            page = await self._in_thread(lambda: pager.ask(job.value, request))
        else:
            page = await pager.ask(job.value, request)
        after = pager.after(request, page)
        items = cast("Page[Any]", page).items
        if after is None:
            job.pages = request.number or None
            return paging.joined(await self._kept(job, request.number), items)
        limit = job.bound.flow.max_payload
        data = paging.encode_items(items, max(self._objects.most, limit))
        if len(data) > limit:
            data = await self._keep(job, data)
        return PageTurn(job.held, job.queue, request.number, data, paging.progress_to(after))

    async def _request(self, job: Job, pager: Pager) -> PageRequest:
        found = paging.request_of(job.bound, pager, job.held.entry, job.values)
        if found is not None:
            return found
        start = None
        if pager.cursor_source is not None:
            start = await self._cursors.read(job.bound.flow, pager.cursor_source)
        return paging.first_request(pager, start)

    async def _kept(self, job: Job, count: int) -> list[bytes]:
        """The pages that were kept. Raises MissingOutput."""
        key = job.held.partition.flow(job.held.entry.flow)
        fields = paging.page_fields(job.held.entry, count)
        found: list[bytes] = []
        for at in range(0, count, TOGETHER):
            for value in await self._store.execute("HMGET", key, *fields[at : at + TOGETHER]):
                if value is None:
                    raise MissingOutput(job.key, f"page {len(found)} is not stored")
                found.append(await self._whole(value))
        return found

    async def _whole(self, value: bytes) -> bytes:
        if not is_stub(value):
            return value
        return await self._in_thread(lambda: self._objects.whole(value))
