"""A system under faults: every process behind a proxy of its own, every fault written down."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from resolute.store.connection import Address, Link
from tests.faults.app import QUEUE
from tests.faults.checker.lines import CutOff
from tests.support.processes import children_of, is_alive, send
from tests.support.proxy import Proxy
from tests.support.system import System

APP = "tests.faults.app"


@dataclass(eq=False)
class Member:
    """A worker or a coordinator, and the proxy through which it reaches Redis."""

    kind: str
    proxy: Proxy
    flags: tuple[str, ...]
    app: str
    process: subprocess.Popen[bytes]
    is_down: bool = False  # on purpose: nobody is to start it again

    def pids(self) -> list[int]:
        """The process and its children, a worker's supervisor first."""
        return [self.process.pid, *self.children()]

    def children(self) -> list[int]:
        return children_of(self.process.pid)


@dataclass
class Kill:
    """Processes that a test killed, and what they were."""

    what: str
    pids: list[int]
    at: float


@dataclass(eq=False)
class Cluster:
    """Workers and coordinators on the server of `system`."""

    system: System
    random: Random
    lease: float
    members: list[Member] = field(default_factory=list[Member])
    cut_off: list[CutOff] = field(default_factory=list[CutOff])
    kills: list[Kill] = field(default_factory=list[Kill])
    proxies: list[Proxy] = field(default_factory=list[Proxy])

    def __post_init__(self) -> None:
        self.client_proxy = self._proxy()
        self.admin = Link(Address(self.system.server.url), name="nemesis")

    @property
    def workers(self) -> list[Member]:
        return [member for member in self.members if member.kind == "worker"]

    @property
    def coordinators(self) -> list[Member]:
        return [member for member in self.members if member.kind == "coordinator"]

    def _proxy(self) -> Proxy:
        proxy = Proxy(self.system.server.port, self.random.randrange(1 << 30))
        self.proxies.append(proxy)
        return proxy

    def add_worker(self, *flags: str, app: str = APP, **variables: str) -> Member:
        proxy = self._proxy()
        flags = ("--lease", f"{self.lease:g}", "--kill-grace", "0.3", "--grace", "5s", *flags)
        process = self.system.worker(
            *flags, app=app, queue=QUEUE, RESOLUTE_REDIS=proxy.url, **variables
        )
        return self._added(Member("worker", proxy, flags, app, process))

    def add_coordinator(self, *flags: str, **variables: str) -> Member:
        proxy = self._proxy()
        flags = ("--lease", f"{self.lease:g}", *flags)
        process = self.system.coordinator(*flags, RESOLUTE_REDIS=proxy.url, **variables)
        return self._added(Member("coordinator", proxy, flags, "", process))

    def _added(self, member: Member) -> Member:
        self.members.append(member)
        return member

    def keep_up(self) -> None:
        """What systemd does: who ended by itself (Redis was away when it began) begins again."""
        for member in self.members:
            if not member.is_down and member.process.poll() is not None:
                self.start_again(member)

    def start_again(self, member: Member) -> None:
        """Another process in the place of one that ended."""
        member.is_down = False
        if member.kind == "worker":
            member.process = self.system.worker(
                *member.flags, app=member.app, queue=QUEUE, RESOLUTE_REDIS=member.proxy.url
            )
        else:
            member.process = self.system.coordinator(*member.flags, RESOLUTE_REDIS=member.proxy.url)

    def kill(self, member: Member, child: int | None = None) -> None:
        """SIGKILL a member, or one of its processes."""
        if child is not None:
            self.kills.append(Kill("a worker process", [child], time.monotonic()))
            send([child], signal.SIGKILL)
            return
        member.is_down = True
        what = "a supervisor" if member.kind == "worker" else "a coordinator"
        self.kills.append(Kill(what, member.pids(), time.monotonic()))
        member.process.kill()
        member.process.wait()

    async def freeze(self, pids: Iterable[int], seconds: float) -> None:
        """SIGSTOP for a while, then SIGCONT."""
        frozen = list(pids)
        since = time.monotonic()
        send(frozen, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            send(frozen, signal.SIGCONT)
            self._note_cut_off(frozen, since)

    async def isolate(self, member: Member, seconds: float, *, hard: bool = False) -> None:
        """Cut a member off from Redis: swallow what is sent, or (`hard`) refuse connections."""
        since, pids = time.monotonic(), set(member.pids())
        if hard:
            member.proxy.cut()
        else:
            member.proxy.swallow()
        try:
            await asyncio.sleep(seconds)
        finally:
            member.proxy.flow()
            self._note_cut_off(pids | set(member.pids()), since)

    def _note_cut_off(self, pids: Iterable[int], since: float) -> None:
        until = time.monotonic()
        self.cut_off += [CutOff(pid, since, until, self.lease) for pid in pids]

    async def revive(self) -> None:
        """Heal what a fault left behind: proxies flow, everybody runs."""
        for proxy in self.proxies:
            proxy.flow()
        for member in self.members:
            send(member.pids(), signal.SIGCONT)
            if not is_alive(member.process.pid):
                member.process.wait()
                self.start_again(member)
        server = self.system.server
        server.resume()
        if not server.running:
            await asyncio.to_thread(server.start)

    async def close(self) -> None:
        """End everything but the server. Twice is once."""
        await self.admin.close()
        for member in self.members:
            send(member.pids(), signal.SIGCONT)
            member.process.terminate()
        for member in self.members:
            try:
                await asyncio.to_thread(member.process.wait, 20)
            except subprocess.TimeoutExpired:
                member.process.kill()
        while self.proxies:
            self.proxies.pop().close()
