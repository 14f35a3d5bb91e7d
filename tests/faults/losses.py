"""A system whose server may forget what it acknowledged, and what must hold all the same.

A lost second, a loss of power and a failover all make the server's time go on from an earlier
moment, under live processes. Runs may be gone then, where they were started at no higher
durability; what is there is whole and ends, and nothing of the time that was lost comes back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from resolute import Client, FlowRun, StoreUnavailable
from resolute.client.history import read_fields
from resolute.durability import Durability
from resolute.errors import DurabilityNotConfirmed, FlowFailed, UnknownRun
from resolute.store import registry, runs
from resolute.store.connection import Address, Link
from resolute.store.server import parse_info
from resolute.store.store import Store
from resolute.testing.server import EmbeddedServer
from tests.faults import oracle
from tests.faults.app import Made, Work, sequence
from tests.faults.cases import CASES, Case
from tests.faults.checker.broken import Broken
from tests.faults.checker.lines import CutOff, judge_lines
from tests.faults.cluster import Cluster
from tests.faults.load import Load
from tests.faults.nemesis import streams_of
from tests.support.leaks import find_leaks
from tests.support.processes import is_alive
from tests.support.system import System, first_use, until

LEASE = 3.0  # s
OPEN_RUNS = 20
# Commands a second, those in scripts too. An idle system sends about 140, most of them for the
# schedule of every second; who asks again without waiting sends thousands.
SPINNING = 300
BEAT_POLL = 0.05  # s
MIXED = [CASES[name] for name in ("sequence", "fan", "branching", "retrying", "throttled",
                                  "saga", "long")]  # fmt: skip


@dataclass
class Tracked:
    """A run of the load, as its client knows it. Times are monotonic."""

    case: Case = field(repr=False)
    how: str
    level: Durability
    acknowledged: float | None = None
    told: str = ""  # what `result` at its level returned
    is_gone: bool = False


CLAIMED = 1.0  # s for what was claimed before a loss to start: on a busy machine it takes its time


@dataclass(frozen=True)
class Loss:
    """The server lost what was acknowledged from `since` on, if anything, and began anew `at`."""

    since: float
    at: float


class LossyLoad(Load):
    """Starts runs and waits for them at one of `levels` each, and copes with those that vanish."""

    def __init__(self, *args: Any, levels: Sequence[Durability] = (Durability.FAST,)) -> None:
        super().__init__(*args)
        self._levels = levels
        self.tracked: dict[str, Tracked] = {}
        self.endings = 0

    async def _drive(self, name: str, case: Case, work: Work, how: str, after: float) -> None:
        level = Random(name).choice(self._levels)
        tracked = self.tracked[name] = Tracked(case, how, level)
        run = await self._begun(name, case, work, level)
        tracked.acknowledged = time.monotonic()
        try:
            if how:
                await asyncio.sleep(after)
                await self._stop(run, how)
            if level is not Durability.FAST:
                tracked.told = await self.outcome(run, level)
            header = await self._end_of(run)
            note = f"{header.status} {header.rev}"
            oracle.write(oracle.Line("ended", name, note=note), self._folder)
            self.endings += 1
        except UnknownRun:
            tracked.is_gone = True

    async def _begun(self, name: str, case: Case, work: Work, level: Durability) -> FlowRun[Any]:
        while True:
            try:
                run = await self._client.start(case.flow, work, id=name, durability=level)
            except (StoreUnavailable, DurabilityNotConfirmed):
                continue
            oracle.write(oracle.Line("started", name, case.flow.name), self._folder)
            return run

    async def outcome(self, run: FlowRun[Any], level: Durability) -> str:
        """What `result` says at this level, as text."""
        while True:
            try:
                return repr(await run.result(Made, durability=level))
            except FlowFailed as error:
                return repr(error)
            except (StoreUnavailable, DurabilityNotConfirmed):
                continue

    async def judge(self) -> None:
        """Judge every run that is there now; an end that was seen may be of a time that is lost."""
        for name, tracked in self.tracked.items():
            try:
                await self._follow(name, tracked.how)
                tracked.is_gone = False
            except UnknownRun:
                tracked.is_gone = True


@dataclass
class Trial:
    """Processes under load, on a server that is about to lose something."""

    cluster: Cluster
    load: LossyLoad
    client: Client
    store: Store  # past every proxy
    random: Random
    began: float  # before its first process was there (monotonic)
    losses: list[Loss] = field(default_factory=list[Loss])
    pids: set[int] = field(default_factory=set[int])
    forward_jumps: int = 0  # of Redis's clock: each may cost a limiter a burst

    async def is_busy(self, count: int = 5) -> None:
        """Wait until the load is under way, or under way again."""
        done = self.load.endings
        await until(lambda: self.load.endings >= done + count, f"{count} more runs end")

    async def acknowledged(self, count: int) -> None:
        """Wait until so many more starts were acknowledged."""
        done = self._acknowledged()
        await until(lambda: self._acknowledged() >= done + count, f"{count} more starts")

    def _acknowledged(self) -> int:
        return sum(one.acknowledged is not None for one in self.load.tracked.values())

    def find_pids(self) -> set[int]:
        return {pid for member in self.cluster.members for pid in member.pids()}

    def gone(self) -> list[Tracked]:
        """The runs that were acknowledged and are not there."""
        tracked = self.load.tracked.values()
        return [one for one in tracked if one.is_gone and one.acknowledged is not None]

    async def follow(self, server: EmbeddedServer) -> None:
        """From now on look at another server; the processes are led there by their proxies."""
        await self.store.close()
        await self.cluster.admin.close()
        self.cluster.system.server = server
        self.cluster.admin = Link(Address(server.url), name="nemesis")
        self.store = await Store.open(server.url, patience=60.0)


@asynccontextmanager
async def trial(
    server: EmbeddedServer,
    folder: Path,
    seed: int,
    *,
    partitions: int | None = None,
    levels: Sequence[Durability] = (Durability.FAST,),
    cases: Sequence[Case] = MIXED,
    workers: int = 2,
    coordinators: int = 2,
    of_workers: Mapping[str, str] | None = None,
    of_coordinators: Mapping[str, str] | None = None,
) -> AsyncGenerator[Trial]:
    """A system under load on a server that runs; when the block is left, all of it is judged.

    The seed says how many partitions, where `partitions` does not. `of_workers` and
    `of_coordinators` are variables for their environment.
    """
    random = Random(seed)
    oracle_folder = folder / "oracle"
    oracle_folder.mkdir()
    await first_use(server.url, partitions or (1, 3)[seed % 2])
    cluster = Cluster(System(server, oracle_folder), random, LEASE)
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(cluster.close)
        for _ in range(coordinators):
            cluster.add_coordinator(**(of_coordinators or {}))
        for _ in range(workers):
            cluster.add_worker("--processes", "1", **(of_workers or {}))
        store = await Store.open(server.url, patience=60.0)
        connected = Client.connect(cluster.client_proxy.url, patience=60.0)
        client = await stack.enter_async_context(connected)
        await cluster.system.offered(client, sequence.name, workers)
        load = LossyLoad(client, oracle_folder, Random(seed), cases, OPEN_RUNS, levels=levels)
        on = Trial(cluster, load, client, store, random, began)
        on.pids = on.find_pids()
        stopped = asyncio.Event()
        loading = asyncio.create_task(load.run(stopped))
        try:
            yield on
        finally:
            stopped.set()
            await loading
        try:
            await until(lambda: not load.open, "every run has ended, or is gone")
        except AssertionError as error:
            raise AssertionError("\n".join([str(error), *await _still_open(on)])) from None
        await load.drained()
        broken = await _judge(on)
        await cluster.close()
        broken += [Broken("I8", "-", leak) for leak in await find_leaks(on.store)]
        await on.store.close()
    assert not broken, "\n".join([f"seed {seed}", *map(str, broken)])


async def _still_open(on: Trial) -> list[str]:
    """What the server and the client know of the runs that nobody saw the end of."""
    found: list[str] = []
    for task in asyncio.all_tasks():
        if (name := task.get_name()) not in on.load.tracked:
            continue
        found.append(f"{name}: {on.load.tracked[name]}")
        found.append(f"  there: {await runs.read_header(on.store, name)}")
        fields = await read_fields(on.store, name, "n:", "s:", "pages", "moved")
        found.append(f"  {fields}")
        found.append(f"  the client waits in {' '.join(_frames(task))}")
    for stream, group in streams_of(on.store) if found else ():
        pending = await on.store.execute("XPENDING", stream, group, "-", "+", 10)
        if entries := await on.store.execute("XRANGE", stream, "-", "+", "COUNT", 10):
            found.append(f"{stream}: {entries}, pending {pending}")
    return [*found, on.cluster.system.logs()] if found else []


def _frames(task: asyncio.Task[None]) -> Iterator[str]:
    """Where a task is, down to what it awaits: its own stack names the outermost call alone."""
    awaited: Any = task.get_coro()
    while (frame := getattr(awaited, "cr_frame", None)) is not None:
        yield f"{frame.f_code.co_name}:{frame.f_lineno}"
        awaited = awaited.cr_await


async def _judge(on: Trial) -> list[Broken]:
    """Everything that must hold however much was lost; each test adds what may not be lost."""
    load = on.load
    await load.judge()
    await until(lambda: _is_drained(on.store), "streams, pending lists and timers are empty")
    broken = [*load.broken, *_wrong_processes(on)]
    if await _is_spinning(on):
        broken.append(Broken("spin", "-", "an idle system sends command after command"))
    lines = oracle.read_all(on.cluster.system.folder)
    broken += _judge_lines(on, lines)
    broken += [one async for one in _left_their_end(on, lines)]
    return broken


async def _is_drained(store: Store) -> bool:
    for stream, group in streams_of(store):
        length, pending = await store.execute_all([("XLEN", stream), ("XPENDING", stream, group)])
        if length or pending[0]:
            return False
    counts = [await store.execute("ZCARD", p.timers) for p in store.keys.partitions]
    return sum(counts) == 0


def _wrong_processes(on: Trial) -> Iterator[Broken]:
    """Whoever lived at the start lives: none died of what it was told by the server."""
    # One by one: the kernel's list of a process's children may leave one out at times (proc(5)).
    died = [pid for pid in on.pids if not is_alive(pid)]
    if died:
        yield Broken("died", "-", f"{sorted(died)}\n{on.cluster.system.logs()}")


async def _is_spinning(on: Trial) -> bool:
    """Whether it sends too much, and does not stop: what a sweep sends is over soon."""
    for _ in range(3):
        if not await _sends_much(on):
            return False
    return True


async def _sends_much(on: Trial) -> bool:
    """Whether more is sent between three beats of a process than an idle system has to send."""
    ours = 0  # commands that are sent to find that out

    async def beats() -> dict[str, int]:
        nonlocal ours
        ours += 2
        return (await registry.read_beats(on.store)).counts

    async def commands() -> int:
        info = parse_info(await on.store.execute("INFO", "stats"))
        return int(info["total_commands_processed"])

    before = await beats()

    async def beaten() -> str:
        """A process that lives: one that has beaten since."""
        while True:
            now = await beats()
            for name, count in before.items():
                if now.get(name, -1) > count:
                    return name
            await asyncio.sleep(BEAT_POLL)

    async with asyncio.timeout(4 * LEASE):
        name = await beaten()
        sent, began, ours = await commands(), time.monotonic(), 1
        last = (await beats())[name]
        while (await beats())[name] < last + 2:
            await asyncio.sleep(BEAT_POLL)
        sent = await commands() - sent - ours
    seconds = time.monotonic() - began
    print(f"idle: {sent} commands in {seconds:.1f} s")
    return sent / seconds > SPINNING


def _judge_lines(on: Trial, lines: Sequence[oracle.Line]) -> Iterable[Broken]:
    """I2 to I4 and I7 for what counts: executions that are committed, or began after the loss.

    The others are of a time that was lost: of them nothing is left but their lines.
    """
    load = on.load
    began = max((loss.at for loss in on.losses), default=0.0)
    claimed = began + CLAIMED if on.losses else began
    committed = {mark for one in load.ended.values() for mark in one.marks.values()}
    old = {
        line.mark
        for line in lines
        if line.what == "start" and line.at < claimed and line.mark not in committed
    }
    there = [
        line
        for line in lines
        if line.run in load.ended
        and line.mark not in old
        and line.what != "started"
        # A stop that was acknowledged before may be lost: as if its answer had never come.
        and not (line.what == "stopped" and line.at < began)
    ]
    # What runs when the server's time goes back may be handed out again at once.
    excused = [CutOff(pid, 0.0, began) for pid in on.pids]
    bursts = len(on.losses) + on.forward_jumps
    account = judge_lines(there, load.ended, excused, lease=LEASE, extra_bursts=bursts)
    yield from account.broken


async def _left_their_end(on: Trial, lines: Sequence[oracle.Line]) -> AsyncGenerator[Broken]:
    """I6: what was seen at its end after the last loss, or durably, is at this end still."""
    began = max((loss.at for loss in on.losses), default=0.0)
    ends = [(line.run, line.note) for line in lines if line.what == "ended" and line.at > began]
    for name, note in ends:
        header = await runs.read_header(on.store, name)
        found = f"{header.status} {header.rev}" if header else "gone"
        if found != note:
            yield Broken("I6", name, f"it was {note} and is {found}")
    for name, tracked in on.load.tracked.items():
        if tracked.told:
            found = await on.load.outcome(FlowRun(on.client, name), Durability.FAST)
            if found != tracked.told:
                yield Broken("I6", name, f"it told {tracked.told} durably and says {found}")


def assert_only_lost(on: Trial, levels: Sequence[Durability] = ()) -> None:
    """None of these levels is gone, and of the others none that was acknowledged before a loss."""
    for one in on.gone():
        assert one.level not in levels, f"acknowledged with {one.level}, and gone: {one}"
        assert one.acknowledged is not None
        assert any(loss.since <= one.acknowledged <= loss.at for loss in on.losses), one
