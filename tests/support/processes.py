"""Signals to processes of a test, and what the kernel says of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable
from pathlib import Path


def state_of(pid: int) -> str:
    """The state letter that ps(1) shows: R, S, D, T, Z; "" where there is no such process."""
    answer = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, check=False)
    return answer.stdout.decode().strip()[:1]


def is_alive(pid: int) -> bool:
    """Whether it runs, or could; one that nobody has waited for does not."""
    return state_of(pid) not in ("", "Z", "X")


def children_of(pid: int) -> list[int]:
    """The processes that a process started (Linux)."""
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """A signal to each that is still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def resident_bytes(pid: int) -> int:
    """Its resident memory; 0 where there is no such process."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
