"""Asking for many issues politely: a page at a time, few at once, with a pause after each.

A node's rate limit counts its starts, not the calls that it makes; a node that makes many has to
mind the service's limit by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import httpx

from examples.enrich_issues.wire import BATCH_LIMIT

T = TypeVar("T")

PAGES_AT_ONCE = 2
PAUSE = 0.05
"""Seconds after each page; with two at once that is at most 40 calls a second."""

ATTEMPTS = 4
"""A page is asked for this often before the node fails, for the node begins at the first page."""


async def in_pages(
    numbers: Sequence[int], fetch: Callable[[Sequence[int]], Awaitable[Sequence[T]]]
) -> list[T]:
    """What `fetch` says about all numbers, in their order."""
    turn = asyncio.Semaphore(PAGES_AT_ONCE)

    async def fetch_page(page: Sequence[int]) -> Sequence[T]:
        async with turn:
            items = await _patiently(fetch, page)
            await asyncio.sleep(PAUSE)
            return items

    pages = [numbers[n : n + BATCH_LIMIT] for n in range(0, len(numbers), BATCH_LIMIT)]
    tasks = [asyncio.ensure_future(fetch_page(page)) for page in pages]
    try:
        return [item for items in await asyncio.gather(*tasks) for item in items]
    finally:
        for task in tasks:
            task.cancel()


async def _patiently(
    fetch: Callable[[Sequence[int]], Awaitable[Sequence[T]]], page: Sequence[int]
) -> Sequence[T]:
    for _ in range(ATTEMPTS - 1):
        try:
            return await fetch(page)
        except httpx.HTTPError:
            await asyncio.sleep(PAUSE)
    return await fetch(page)
