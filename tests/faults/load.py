"""The load: a client that starts runs, stops some, waits for each and has it judged."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import deque
from collections.abc import Coroutine, Sequence
from pathlib import Path
from random import Random
from typing import Any

from resolute import Client, FlowRun, RunEnded, RunStatus, StoreUnavailable, Unique, UnknownRun
from resolute.client.history import read_children
from resolute.client.objects import Objects
from resolute.ids import root_of
from resolute.priority import Priority
from resolute.storage import Storage
from resolute.store import runs
from resolute.store.connection import ServerReply
from resolute.store.runs import Header
from resolute.store.store import Store
from tests.faults import app
from tests.faults.app import Work
from tests.faults.cases import CASES, Case, Sharing
from tests.faults.checker.broken import Broken
from tests.faults.checker.ended import Ended, Snapshot, judge_run
from tests.faults.oracle import Line, write
from tests.faults.starting import begin

STOP_RATE = 0.4  # of the runs whose case allows it
SOON = 3.0  # s
CHUNK = 200  # runs looked at together


class Load:
    """Keeps about `open_runs` runs open until told to stop; `ended` are those that were judged."""

    def __init__(
        self,
        client: Client,
        folder: Path,
        random: Random,
        cases: Sequence[Case],
        open_runs: int,
    ) -> None:
        self._client = client
        self._folder = folder
        self._objects = Objects(client.store, Storage(str(folder.parent / "objects")))
        self._random = random
        self._cases = list(cases)
        self._weights = [case.weight for case in cases]
        self._open_runs = open_runs
        self._tasks: set[asyncio.Task[None]] = set()
        self._prefix = f"{random.randrange(1 << 32):08x}"
        self._count = 0
        self._serial = itertools.count(1)
        self.ended: dict[str, Ended] = {}
        self._to_see_again: deque[tuple[float, str]] = deque()
        self.broken: list[Broken] = []
        self.last_end = time.monotonic()

    @property
    def open(self) -> int:
        return len(self._tasks)

    async def run(self, stopped: asyncio.Event) -> None:
        """Start runs until `stopped`; then wait for what is open with `drained`."""
        while not stopped.is_set():
            if self.open < self._open_runs:
                self.start(self._random.choices(self._cases, self._weights)[0])
            # Open-ended on purpose: starts are spread, and the pace is that of the system.
            await asyncio.sleep(0.01 if self.open < self._open_runs else 0.05)

    def start(self, case: Case, count: int = 1) -> None:
        """Begin to drive so many runs of a case."""
        for _ in range(count):
            self._count += 1
            name = f"{self._prefix}-{self._count}"
            work = case.work(self._random)
            stop = case.is_stopped and self._random.random() < STOP_RATE
            how = self._random.choice(("cancel", "terminate")) if stop else ""
            after = self._random.uniform(0.0, 2.0)
            drive = self._drive(name, case, work, how, after)
            self._keep(asyncio.create_task(self._guarded(name, drive), name=name))

    def _keep(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def adopt(self, name: str, case: Case) -> None:
        """Wait for a run that somebody else started, and judge it; it may have been stopped.

        Who started it may have died before it sent the run's signal: it is the same one.
        """
        if case.signal:
            run = FlowRun[Any](self._client, name)
            self._keep(asyncio.create_task(self._guarded(name, self._signal(run, case, 0.0))))
        self._keep(asyncio.create_task(self._guarded(name, self._follow(name, "unknown"))))

    async def replace_slowly(self) -> None:
        """Let a run wait for longer than a lease for the end of the one that it replaces."""
        client, case = self._client, CASES[app.alone.name]
        number = app.SLOW + next(self._serial)
        unique = Unique(app.key_of(number), "replace")
        old = await client.start(case.flow, Work(number), unique=unique)
        until = time.monotonic() + SOON
        while time.monotonic() < until:
            header = await runs.read_header(client.store, old.id)
            if header is None or header.seq > 1:  # what it did is to be undone
                break
            await asyncio.sleep(0.05)
        new = await client.start(case.flow, Work(number), unique=unique)
        for run in (old, new):
            write(Line("started", run.id, case.flow.name), self._folder)
            self.adopt(run.id, case)

    async def look_again(self, store: Store, after: float) -> None:
        """I6: runs that ended `after` seconds ago are what they were then."""
        names: list[str] = []
        while self._to_see_again and time.monotonic() - self._to_see_again[0][0] >= after:
            names.append(self._to_see_again.popleft()[1])
        for at in range(0, len(names), CHUNK):
            batch = names[at : at + CHUNK]
            for name, header in zip(batch, await runs.read_headers(store, batch), strict=True):
                was = self.ended[name]
                if not isinstance(header, Header):
                    self.broken.append(Broken("I6", name, f"it is not there any more: {header}"))
                elif (header.status, header.rev) != (was.status, was.rev):
                    why = f"it was {was.status} ({was.rev}), and is {header.status} ({header.rev})"
                    self.broken.append(Broken("I6", name, why))

    async def drained(self) -> None:
        """Wait until every run has ended and was judged."""
        while self._tasks:
            done, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()

    async def _guarded(self, name: str, drive: Coroutine[Any, Any, None]) -> None:
        """A client that cannot go on is a fault of ours, too."""
        try:
            await drive
        except Exception as error:
            self.broken.append(Broken("client", name, repr(error)))

    async def _drive(self, name: str, case: Case, work: Work, how: str, after: float) -> None:
        run = await self._started(name, case, work)
        name = run.id
        if case.sharing is Sharing.UNIQUE:
            how = "replaced"  # perhaps
        if case.signal:
            self._keep(asyncio.create_task(self._guarded(name, self._signal(run, case, after))))
        if how and how != "replaced":
            await asyncio.sleep(after)
            await self._stop(run, how)
        await self._follow(name, how)

    async def _follow(self, name: str, how: str) -> None:
        """Wait for the end of a run, and judge it."""
        header = await self._end_of(FlowRun(self._client, name))
        self.last_end = time.monotonic()
        write(Line("ended", name, note=f"{header.status} {header.rev}"), self._folder)
        plan = await self._client.directory.plan(header.plan) if header.plan else None
        if plan is None:
            if not how:
                self.broken.append(Broken("I1", name, f"it {header.status} before it began"))
            self.ended[name] = Ended.before_it_began(header)
            return
        snapshot = await Snapshot.read(self._client.store, header, plan, self._objects)
        ended, broken = judge_run(snapshot, was_stopped=bool(how))
        self.ended[name] = ended
        self._to_see_again.append((time.monotonic(), name))
        self.broken += broken
        # One that the run told to stop may end after it.
        told = "" if header.status is RunStatus.COMPLETED else "by its parent"
        for child in await read_children(self._client.store, header, plan):
            await self._follow(child, told)

    async def _started(self, name: str, case: Case, work: Work) -> FlowRun[Any]:
        """Start it; what was not acknowledged is sent again, with the same id."""
        priority = tuple(Priority)[int(name.rpartition("-")[2]) % 3]
        while True:
            try:
                run, line = await begin(
                    self._client, case, work, name=name, key=self._prefix, random=self._random,
                    serial=self._serial, priority=priority,
                )  # fmt: skip
            except StoreUnavailable:
                continue
            except ServerReply as error:
                if error.code != "OOM":  # refused for now, clearly
                    raise
                await asyncio.sleep(0.1)  # until there is room again
                continue
            write(line, self._folder)
            return run

    async def _stop(self, run: FlowRun[Any], how: str) -> None:
        write(Line("stopping", run.id, note=how), self._folder)
        done = await (run.cancel() if how == "cancel" else run.terminate())
        write(Line("stopped", run.id, note=f"{how} {done}"), self._folder)

    async def _signal(self, run: FlowRun[Any], case: Case, after: float) -> None:
        """Send it at some time, as often as it takes, and once more: it is one signal.

        Also to a retried run, which has what was sent to the one before it.
        """
        await asyncio.sleep(after / 2)  # runs are signalled early and late
        for _ in range(2):
            while True:
                try:
                    await run.signal(case.signal, case.payload, sender=root_of(run.id))
                except StoreUnavailable:
                    continue
                except (RunEnded, UnknownRun):
                    return
                break

    async def _end_of(self, run: FlowRun[Any]) -> Header:
        while True:
            try:
                return await run._ended(self._client.store)
            except StoreUnavailable:
                continue
