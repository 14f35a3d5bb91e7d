"""Threads for what blocks: plain functions of nodes, and functions that read from the storage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any


class Threads:
    """As many as there are slots, started as they are needed."""

    def __init__(self, size: int) -> None:
        self._pool = ThreadPoolExecutor(size, thread_name_prefix="node")
        self._loop = asyncio.get_running_loop()

    async def run(self, call: Callable[[], Any]) -> Any:
        """What a blocking call of ours, or a function of the user's, returns; or what it raises."""
        here = copy_context()
        value, error = await self._loop.run_in_executor(self._pool, lambda: here.run(_call, call))
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)


def _call(call: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """What a function returns, or raises: a future would not take a StopIteration."""
    try:
        return call(), None
    except BaseException as error:
        return None, error
