"""Calling hooks beside the nodes of a process: in threads of their own, for so long at most."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from resolute.engine.hooking import HOOK_SECONDS, Call, call_all

log = logging.getLogger(__name__)


class HookCaller:
    """At most `size` threads; one whose hook blocks for longer than its time is left behind."""

    def __init__(self, size: int, seconds: float = HOOK_SECONDS) -> None:
        self.seconds = seconds
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="hook")

    async def call(self, calls: Sequence[Call], name: str) -> None:
        """Call hooks of node `name`, and wait for them no longer than their time."""
        until = time.monotonic() + self.seconds
        loop = asyncio.get_running_loop()
        called = loop.run_in_executor(self._threads, call_all, calls, name, until)
        # A coroutine is stopped in its thread at its time, a function that blocks is not.
        done, _ = await asyncio.wait([called], timeout=self.seconds + 0.5)
        if not done:
            called.cancel()
            log.error("a hook of node %s blocks for %g s: going on without it", name, self.seconds)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
