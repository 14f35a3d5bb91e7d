"""Crash points: every call to Redis, in every program, before it is sent and when it is answered.

The product has no hooks for this. All its traffic goes through `Connection.send` and `post`, and
the blocking `SyncReader`; `install` wraps these in processes that a test starts. A point's name is
the function that makes the call: the innermost frame that `sites` found by reading the sources. So
a call that is new has its points without anybody's doing, and a test fails until something reaches
them.
"""

from __future__ import annotations

import ast
import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec

import resolute
from resolute.errors import StoreUnavailable
from resolute.store.connection import REPLY_TIMEOUT, Command, Connection
from resolute.store.sync import SyncReader

ROOT = Path(resolute.__file__).parents[1]
VARIABLE = "RESOLUTE_POINTS"
CALLS = {
    "execute", "execute_all", "try_all", "write_all", "request", "request_all", "post", "hmget",
    "hkeys", "_once",
}  # fmt: skip
# Through these every call goes; it is their callers that make one.
PLUMBING = {
    "resolute.store.connection.Connection.request",
    "resolute.store.connection.Connection.request_all",
    "resolute.store.connection.Link.execute",
    "resolute.store.connection.Link.execute_all",
    "resolute.store.durable.DurableStore.execute_all",
    "resolute.store.store.Store._once",
    "resolute.store.store.Store.call",
    "resolute.store.store.Store.execute",
    "resolute.store.store.Store.execute_all",
    "resolute.store.store.Store.try_all",
    "resolute.store.store.Store.write_all",
    "resolute.store.store._evaluate",
    "resolute.store.store._request_all",
    "resolute.store.store._try_all",
    "resolute.store.sync.SyncReader.hkeys",
    "resolute.store.sync.SyncReader.hmget",
}
# Made in a cluster alone, to end a blocking read sooner: test_cluster.py goes through them.
IN_A_CLUSTER = {
    "resolute.store.reading._Lane._open",
    "resolute.store.reading._Lane.unblock",
}


class Phase(StrEnum):
    """When: before the call is sent; when it was done, but nobody read the answer; after that."""

    BEFORE = "before"
    SENT = "sent"
    AFTER = "after"


class Action(StrEnum):
    """What: the process is killed, or stopped; the call fails; it is late."""

    KILL = "kill"
    STOP = "stop"
    RAISE = "raise"
    DELAY = "delay"


class Point(msgspec.Struct, frozen=True):
    """A call of a program, when, and what happens then."""

    program: str
    site: str
    phase: Phase
    action: Action

    def __str__(self) -> str:
        return f"{self.program} {self.site} {self.phase} {self.action}"


class Spec(msgspec.Struct, frozen=True):
    """What a process is armed with: each point fires once in all processes that share `folder`.

    It does so at the `nth` time that one of them comes by. Without points it only notes which sites
    are reached. `delay` is in seconds.
    """

    folder: str
    known: str  # a file with the sites, a line each: reading all sources at each start is slow
    points: tuple[Point, ...] = ()
    nth: int = 1
    delay: float = 1.0

    def environment(self) -> dict[str, str]:
        """The variables of a process that is armed with this."""
        path = os.pathsep.join([str(Path(__file__).parent / "sites"), str(ROOT)])
        return {VARIABLE: str(msgspec.json.encode(self), "utf-8"), "PYTHONPATH": path}

    def fired(self, point: Point) -> Path:
        """There once it has fired; holds the pid of the process that it fired in."""
        return Path(self.folder) / f"{self.points.index(point)}.fired"


def sources() -> Iterator[tuple[str, Path]]:
    """Every module that may talk to Redis, with its file."""
    for base in (ROOT, ROOT / "worker"):
        for package in ("resolute", "resolute_worker"):
            for path in sorted((base / package).rglob("*.py")):
                yield ".".join(path.relative_to(base).with_suffix("").parts), path


def sites() -> set[str]:
    """Every function that makes a call to Redis, as module.qualname."""
    found: set[str] = set()
    for module, path in sources():
        _visit(ast.parse(path.read_text("utf-8")), module, found)
    return found - PLUMBING - IN_A_CLUSTER


def _visit(node: ast.AST, name: str, found: set[str]) -> None:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                inner = f"{name}.{child.name}"
                _visit(child, f"{inner}.<locals>", found)
                continue
            case ast.ClassDef():
                _visit(child, f"{name}.{child.name}", found)
                continue
            case ast.Call(func=ast.Attribute(attr=attr, value=receiver)):
                if attr in CALLS or (attr == "call" and ast.unparse(receiver).endswith("store")):
                    found.add(name.removesuffix(".<locals>"))
            case _:
                pass
        _visit(child, name, found)


class Tap:
    """Watches the calls of this process and fires where it is told to."""

    def __init__(self, spec: Spec, known: set[str]) -> None:
        self._spec = spec
        self._known = known
        self._names: dict[Any, str] = {}
        self._seen: set[str] = set()
        self._passed: dict[str, int] = {}
        self.program = program_name()
        self._points: dict[str, list[Point]] = {}
        for point in spec.points:
            if point.program == self.program:
                self._points.setdefault(point.site, []).append(point)

    def site(self) -> str:
        """The site that the current call is made at; "" where no frame is one."""
        frame: FrameType | None = sys._getframe(2)
        while frame is not None:
            code = frame.f_code
            name = self._names.get(code)
            if name is None:
                module = str(frame.f_globals.get("__name__", ""))
                name = f"{module}.{code.co_qualname}"
                name = name.removesuffix(".<locals>.<lambda>")
                self._names[code] = name = name if name in self._known else ""
            if name:
                self._note(name)
                return name
            frame = frame.f_back
        return ""

    def _note(self, name: str) -> None:
        if name not in self._seen:
            self._seen.add(name)
            path = Path(self._spec.folder) / f"{os.getpid()}.sites"
            with path.open("a") as file:
                file.write(f"{self.program} {name}\n")

    def armed(self, site: str) -> Point | None:
        """The point that this call is to fire at. Counts."""
        points = self._points.get(site)
        if points is None:
            return None
        self._passed[site] = self._passed.get(site, 0) + 1
        if self._passed[site] < self._spec.nth:
            return None
        return next((point for point in points if not self._spec.fired(point).exists()), None)

    def fire(self, point: Point, phase: Phase) -> bool:
        """Do it, in this phase; whether the call is to fail."""
        if phase is not point.phase:
            return False
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        try:
            descriptor = os.open(self._spec.fired(point), flags)
        except FileExistsError:
            return False
        os.write(descriptor, str(os.getpid()).encode())
        os.close(descriptor)
        match point.action:
            case Action.KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            case Action.STOP:
                os.kill(os.getpid(), signal.SIGSTOP)
            case Action.DELAY:
                time.sleep(self._spec.delay)
            case Action.RAISE:
                return True
        return False


def program_name() -> str:
    """Which of the programs this process is."""
    words = " ".join(sys.orig_argv)
    for name, part in (
        ("coordinator", "resolute-coord"),
        ("supervisor", "resolute-worker"),
        ("child", "-m resolute_worker"),
        ("client", "tests.faults.visitor"),
    ):
        if part in words:
            return name
    return "other"


def install() -> None:
    """Wrap every way to Redis in this process, as RESOLUTE_POINTS says."""
    spec = msgspec.json.decode(os.environ[VARIABLE], type=Spec)
    tap = Tap(spec, set(Path(spec.known).read_text().split()))
    if tap.program != "other":
        Connection.send = _tapped_send(tap, Connection.send)
        Connection.post = _tapped_post(tap, Connection.post)
        SyncReader.hmget = _tapped_sync(tap, SyncReader.hmget)
        SyncReader.hkeys = _tapped_sync(tap, SyncReader.hkeys)


def _tapped_send(tap: Tap, send: Callable[..., Any]) -> Any:
    def tapped(
        self: Connection, command: Command, timeout: float = REPLY_TIMEOUT
    ) -> asyncio.Future[Any]:
        point = tap.armed(tap.site())
        if point is None:
            return send(self, command, timeout)
        if tap.fire(point, Phase.BEFORE):
            self.close()
        sent = send(self, command, timeout)
        answer = asyncio.get_running_loop().create_future()

        def answered(_: asyncio.Future[Any]) -> None:
            # The server has done it; the caller has not been told.
            error = sent.exception()
            if tap.fire(point, Phase.SENT):
                self.close()
                error = StoreUnavailable("the answer was lost")
            # Its own callbacks come first: by then the caller has gone on with the answer.
            answer.add_done_callback(lambda _: _fire_after(tap, point, self))
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
                answer.exception()
            else:
                answer.set_result(sent.result())

        sent.add_done_callback(answered)
        return answer

    return tapped


def _fire_after(tap: Tap, point: Point, connection: Connection) -> None:
    if tap.fire(point, Phase.AFTER):
        connection.close()


def _tapped_post(tap: Tap, post: Callable[..., Any]) -> Any:
    def tapped(self: Connection, command: Command) -> None:
        point = tap.armed(tap.site())
        if point is None:
            return post(self, command)
        if tap.fire(point, Phase.BEFORE):
            self.close()
        post(self, command)
        if tap.fire(point, Phase.SENT) or tap.fire(point, Phase.AFTER):
            self.close()
        return None

    return tapped


def _tapped_sync(tap: Tap, read: Callable[..., Any]) -> Any:
    def tapped(self: SyncReader, *arguments: Any) -> Any:
        point = tap.armed(tap.site())
        if point is None:
            return read(self, *arguments)
        if tap.fire(point, Phase.BEFORE):
            raise StoreUnavailable("injected")
        found = read(self, *arguments)
        if tap.fire(point, Phase.SENT) or tap.fire(point, Phase.AFTER):
            raise StoreUnavailable("injected")
        return found

    return tapped


def reached(folder: Path) -> set[tuple[str, str]]:
    """The (program, site) pairs that processes came by."""
    lines = [line for path in folder.rglob("*.sites") for line in path.read_text().splitlines()]
    return {(program, site) for program, _, site in (line.partition(" ") for line in lines)}


def fired_in(path: Path) -> int:
    """The pid of the process that a point fired in; 0 where none has, or has not told it yet."""
    return int(path.read_text() or 0) if path.exists() else 0
