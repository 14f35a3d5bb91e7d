"""Flows whose nodes give heartbeats."""

from __future__ import annotations

import os
import signal
import time

from resolute import FlowBuilder, RetryPolicy, current, manual, node
from tests.e2e.app import folder, note, opened

ROWS = 6
TWICE = RetryPolicy(initial_interval="50ms", max_attempts=2)


def flow(name: str) -> FlowBuilder[None, None]:
    return FlowBuilder(name, input=type(None)).triggered_by(manual("test"))


@node("copy", heartbeat="10s")
async def copy() -> int:
    """Dies when it has copied half of it, and what it told of that is written."""
    first = current().progress(int) or 0
    for row in range(first, ROWS):
        note("row", row)
        current().heartbeat(row + 1)
        if row == ROWS // 2 and first == 0:
            await opened("kept")
            os.kill(os.getpid(), signal.SIGKILL)
    return first


@node("stuck", timeout="1h", heartbeat="500ms", retry=TWICE)
def stuck() -> str:
    """A thread that hangs: its process must go, and the other nodes of that with it."""
    if current().attempt == 1:
        note("stuck")
        time.sleep(3600)  # in a node
    return "went on"


@node("beside")
async def beside() -> int:
    """Runs in the same process for longer than that one hangs."""
    note("beside")
    while not (folder() / "free").exists():
        await opened("free")
    return current().attempt


copying = flow("copied-by-rows").then(copy).build()
silent = flow("went-silent").then_parallel("both", stuck, beside).build()
