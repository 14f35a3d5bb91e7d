"""The services' client: typed answers, and refusals as the exceptions that a node should raise."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import httpx
import msgspec

from examples.enrich_issues import settings
from examples.enrich_issues.wire import (
    Batch,
    IssueList,
    IssueSummary,
    Mentions,
    Numbers,
    Thread,
    TrackedIssue,
)
from resolute import RetryAfter, TerminalError

T = TypeVar("T")

TIMEOUT = 20.0
"""Seconds for one call."""

CONNECTIONS = 16
"""Calls of one process at the same time; the others wait their turn. For each call httpx looks
through all its connections and all calls that wait for one, so more of either is slower."""


class Services:
    """Calls the three services over one pool of connections.

    Every method raises RetryAfter for a 429, TerminalError for any other 4xx, and httpx.HTTPError
    for what another attempt may cure: a 5xx, or a connection that broke.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._turn = asyncio.Semaphore(CONNECTIONS)

    async def issue_list(self) -> IssueList:
        return await self._call("GET", "/tracker/issues", IssueList)

    async def issue_summary(self, number: int) -> IssueSummary:
        return await self._call("GET", f"/tracker/issues/{number}/summary", IssueSummary)

    async def tracked_issue(self, number: int) -> TrackedIssue:
        return await self._call("GET", f"/tracker/issues/{number}", TrackedIssue)

    async def thread(self, number: int) -> Thread:
        return await self._call("GET", f"/chat/issues/{number}", Thread)

    async def mentions(self, number: int) -> Mentions:
        return await self._call("GET", f"/pulls/issues/{number}", Mentions)

    async def tracked_issues(self, numbers: Sequence[int]) -> Sequence[TrackedIssue]:
        return (await self._batch("/tracker/issues/batch", numbers, Batch[TrackedIssue])).items

    async def threads(self, numbers: Sequence[int]) -> Sequence[Thread]:
        return (await self._batch("/chat/issues/batch", numbers, Batch[Thread])).items

    async def all_mentions(self, numbers: Sequence[int]) -> Sequence[Mentions]:
        return (await self._batch("/pulls/issues/batch", numbers, Batch[Mentions])).items

    async def _batch(self, path: str, numbers: Sequence[int], answer: type[T]) -> T:
        return await self._call("POST", path, answer, Numbers(tuple(numbers)))

    async def _call(self, method: str, path: str, answer: type[T], body: Any = None) -> T:
        content = None if body is None else msgspec.json.encode(body)
        async with self._turn:
            response = await self._http.request(method, path, content=content)
        if response.status_code == 429:
            raise RetryAfter(float(response.headers.get("Retry-After", "1")))
        if response.is_client_error:
            raise TerminalError(f"{method} {path}: {response.status_code} {response.text}")
        return msgspec.json.decode(response.raise_for_status().content, type=answer)


_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Services] = WeakKeyDictionary()


def services() -> Services:
    """The client of the running loop, which is the worker process's one; made on first use."""
    loop = asyncio.get_running_loop()
    if loop not in _of_loop:
        limits = httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS)
        http = httpx.AsyncClient(
            base_url=settings.services_url(), timeout=TIMEOUT, limits=limits, trust_env=False
        )
        _of_loop[loop] = Services(http)
    return _of_loop[loop]
