"""The oracle that is not Redis: what nodes and clients did, appended to a file of each process.

A line is written by one write(2) to a file opened with O_APPEND, so that it is whole however the
process dies. It is not synced: processes are killed here, never the machine, and what was written
is the kernel's from then on. Times are CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import msgspec

from resolute import NodeContext, current
from resolute.ids import random_text

FOLDER = "RESOLUTE_TEST_FOLDER"
SUFFIX = ".oracle"


class Line(msgspec.Struct, omit_defaults=True):
    """What happened.

    `start`, `end` and `stop` are of a node: it began, returned, or was left by an exception. Each
    execution has a `mark` of its own, which its output carries; `saw` are the marks that came in.
    `started`, `stopped` (cancelled or terminated) and `ended` are a client's: it was told so. Of a
    stop it writes `stopping`, too, before it asks for it.
    The note of a debounced start is its number. What a client that may be killed has started is
    `visited`: others wait for it.
    `who` is one process for good: a pid may be another's an hour later.
    """

    what: str
    run: str
    node: str = ""
    seq: int = 0
    index: int = 0
    attempt: int = 0
    mark: str = ""
    saw: tuple[str, ...] = ()
    note: str = ""
    pid: int = 0
    at: float = 0.0
    wall: float = 0.0
    who: str = ""
    visited: bool = False


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Line).decode


@cache
def _descriptor(path: str, pid: int) -> int:
    return os.open(f"{path}/{pid}{SUFFIX}", os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)


@cache
def _who(pid: int) -> str:
    return f"{pid}-{random_text(6)}"


def write(line: Line, folder: Path | None = None) -> None:
    """Append a line to this process's file, with the time and the pid."""
    line.pid, line.at, line.wall = os.getpid(), time.monotonic(), time.time()
    line.who = _who(line.pid)
    path = str(folder) if folder else os.environ[FOLDER]
    os.write(_descriptor(path, line.pid), _encode(line) + b"\n")


@contextlib.contextmanager
def execution(saw: Sequence[str] = (), about: str = "") -> Generator[tuple[NodeContext, str]]:
    """An execution of the node that runs here: where it is, and its mark; `about` is noted."""
    here, mark = current(), random_text(16)

    def note(what: str, why: str = "") -> None:
        write(
            Line(
                what, here.run_id, here.node, here.seq, here.index, here.attempt, mark,
                tuple(saw), why,
            )
        )  # fmt: skip

    note("start", about)
    try:
        yield here, mark
    except BaseException as error:
        note("stop", type(error).__name__)
        raise
    note("end")


class Reader:
    """Reads what was appended since the last time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._offsets: dict[Path, int] = {}

    def fresh(self) -> Iterator[Line]:
        """New lines, in the order of each file."""
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            with path.open("rb") as file:
                file.seek(self._offsets.get(path, 0))
                data = file.read()
            whole = data[: data.rfind(b"\n") + 1]
            self._offsets[path] = self._offsets.get(path, 0) + len(whole)
            yield from map(_decode, whole.splitlines())


def is_running(folder: Path, pid: int, prefix: str = "") -> bool:
    """Whether a process is in the middle of a node whose name begins so."""
    path = folder / f"{pid}{SUFFIX}"
    if not path.exists():
        return False
    lines = [_decode(line) for line in path.read_bytes().splitlines()]
    over = {line.mark for line in lines if line.what in ("end", "stop")}
    return any(
        line.what == "start" and line.mark not in over and line.node.startswith(prefix)
        for line in lines
    )


def read_all(folder: Path) -> list[Line]:
    """Every line there is, in order of time."""
    return in_order(Reader(folder).fresh())


def in_order(lines: Iterable[Line]) -> list[Line]:
    return sorted(lines, key=lambda line: line.at)
