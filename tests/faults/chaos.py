"""The soak: load, a schedule of faults, and a judgement at the end."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from resolute import Client, FlowRun, ResoluteError
from resolute.cli.output import to_json
from resolute.status import OPEN
from resolute.store import runs
from resolute.store.store import Store
from resolute.testing.server import EmbeddedServer, ServerBinary
from tests.faults import app, oracle
from tests.faults.cases import USUAL, Case
from tests.faults.checker.broken import Broken
from tests.faults.checker.ended import Snapshot, judge_letters, judge_run, read_buried
from tests.faults.checker.lines import Account, judge_lines
from tests.faults.cluster import Cluster, Kill
from tests.faults.load import Load
from tests.faults.nemesis import Fault, Inject, Scene, streams_of
from tests.support.leaks import find_leaks
from tests.support.processes import resident_bytes
from tests.support.system import System, first_use

LEASE = 3.0  # s
STUCK = 3  # leases in which nothing moved while runs are open: then something is stuck
DRAIN_POLL = 0.05  # s
DRAIN_LEASES = 20
MANY = 1_000_000
SEEN_AGAIN = 30.0  # s after its end a run is looked at once more
RETENTION = "5m"  # a long soak must not fill the memory


class Stuck(AssertionError):
    """Nothing moves; `state` is that of a run that should."""

    def __init__(self, why: str, state: str) -> None:
        self.state = state
        super().__init__(f"{why}\n{state}")


@dataclass(frozen=True)
class Plan:
    """What the soak is asked for. `seconds` are those in which faults are injected."""

    seconds: float
    seed: int
    workers: int
    coordinators: int
    partitions: int
    faults: Sequence[Fault]
    open_runs: int = 40
    cases: Sequence[Case] = USUAL
    processes: int = 2
    lease: float = LEASE
    binary: ServerBinary | None = None
    appendfsync: str = "everysec"


class Recovery(NamedTuple):
    """A node that ran when its process was killed, and ran again so much later."""

    seconds: float
    node: str


@dataclass
class Report:
    """What a soak came to."""

    plan: Plan
    faults: Counter[str] = field(default_factory=Counter[str])
    runs: int = 0
    nodes: int = 0
    attempts: int = 0
    crashes: int = 0
    poisoned: int = 0
    repeated: list[str] = field(default_factory=list[str])
    stale: int = 0
    account: Account = field(default_factory=Account)
    recovery: dict[str, list[Recovery]] = field(default_factory=dict[str, list[Recovery]])
    broken: list[Broken] = field(default_factory=list[Broken])
    histories: dict[str, str] = field(default_factory=dict[str, str])
    memory: dict[str, tuple[float, float]] = field(default_factory=dict[str, tuple[float, float]])


class Soak:
    """One soak in a folder of its own. `say` gets a line about what is going on."""

    def __init__(self, plan: Plan, folder: Path, say: Callable[[str], None]) -> None:
        self.plan = plan
        self.report = Report(plan)
        self._folder = folder
        self._say = say
        self._random = Random(plan.seed)
        self._reader = oracle.Reader(folder / "oracle")
        self._lines: list[oracle.Line] = []
        self._moved = time.monotonic()

    async def run(self, scenario: Inject | None = None) -> Report:
        """Run it: the schedule of faults, or `scenario` in its place, under load.

        What is broken is in the report. Raises Stuck where nothing moves any more.
        """
        plan = self.plan
        folder = self._folder / "server"
        folder.mkdir(parents=True)
        server = EmbeddedServer(folder, binary=plan.binary, appendfsync=plan.appendfsync)
        await asyncio.to_thread(server.start)
        try:
            return await self.run_on(server, scenario or self._inject)
        finally:
            server.stop()

    async def run_on(self, server: EmbeddedServer, scenario: Inject) -> Report:
        """Run it on a server that is up, or one of a cluster."""
        plan = self.plan
        (self._folder / "oracle").mkdir(parents=True)
        await first_use(server.url, plan.partitions)
        async with AsyncExitStack() as stack:
            cluster = Cluster(System(server, self._folder / "oracle"), self._random, plan.lease)
            stack.push_async_callback(cluster.close)
            await self._play(cluster, scenario)
        return self.report

    async def _play(self, cluster: Cluster, inject: Inject) -> None:
        plan, system = self.plan, cluster.system
        for _ in range(plan.coordinators):
            cluster.add_coordinator("--retention", RETENTION)
        for _ in range(plan.workers):
            cluster.add_worker("--processes", str(plan.processes))
        store = await Store.open(system.server.url, patience=60.0)
        async with Client.connect(cluster.client_proxy.url, patience=60.0) as client:
            await system.offered(client, app.sequence.name, plan.workers)
            load = Load(client, system.folder, Random(plan.seed), plan.cases, plan.open_runs)
            scene = Scene(cluster, load, store, self._random)
            before = self._memory(cluster)
            await self._soak(scene, inject)
            await cluster.revive()
            await self._watched(load.drained(), scene)
            self._say("drained: looking at what is left")
            await load.look_again(store, 0.0)
            self.report.broken += await self._leftovers(store)
            self.report.broken += judge_letters(await read_buried(store))
            await self._judge_ticks(client, load)
            self.report.memory = {
                name: (size, self._memory(cluster).get(name, 0.0)) for name, size in before.items()
            }
            self._judge(cluster, load)
            await self._tell_histories(client)
        await cluster.close()
        self.report.stale = await _stat(store, "stale_attempts")
        self.report.broken += [Broken("I8", "-", leak) for leak in await find_leaks(store)]
        await store.close()

    async def _soak(self, scene: Scene, inject: Inject) -> None:
        """Load and faults for as long as the plan says."""
        stopped = asyncio.Event()
        loading = asyncio.create_task(scene.load.run(stopped))
        try:
            await self._watched(inject(scene), scene)
        finally:
            stopped.set()
            await loading

    async def _inject(self, scene: Scene) -> None:
        plan = self.plan
        end = time.monotonic() + plan.seconds
        weights = [one.weight for one in plan.faults]
        while time.monotonic() < end:
            await asyncio.sleep(self._random.uniform(0.3, 2.0))
            if not plan.faults:
                continue
            one = self._random.choices(list(plan.faults), weights)[0]
            self.report.faults[f"{one.number} {one.name}"] += 1
            self._tell(scene, one.name, max(0.0, end - time.monotonic()))
            inner = Random(self._random.randrange(1 << 32))
            await one.inject(Scene(scene.cluster, scene.load, scene.store, inner))

    def _tell(self, scene: Scene, name: str, left: float) -> None:
        load = scene.load
        self._say(
            f"{left:5.0f} s left   {sum(self.report.faults.values()):4} faults"
            f"   {len(load.ended):6} runs ended, {load.open:4} open"
            f"   {len(load.broken)} broken   now: {name}"
        )

    async def _watched(self, work: Coroutine[Any, Any, None], scene: Scene) -> None:
        """Wait for `work` and see to it that something moves meanwhile."""
        task = asyncio.create_task(work)
        self._moved = time.monotonic()
        while not task.done():
            await asyncio.wait([task], timeout=0.5)
            scene.cluster.keep_up()
            fresh = list(self._reader.fresh())
            self._lines += fresh
            await scene.load.look_again(scene.store, SEEN_AGAIN)
            if fresh or not scene.load.open:
                self._moved = time.monotonic()
            # A fault may hold everything up for two leases by itself.
            allowed = (STUCK + 2) * self.plan.lease + scene.standstill
            if time.monotonic() - self._moved > allowed:
                task.cancel()
                raise Stuck(
                    f"nothing moved for {time.monotonic() - self._moved:.0f} s with"
                    f" {scene.load.open} runs open",
                    await self._describe_open(scene.store),
                )
        task.result()

    async def _describe_open(self, store: Store) -> str:
        found: list[str] = []
        for partition in store.keys.partitions:
            for raw in (await store.execute("ZRANGE", partition.open, 0, 2)) or ():
                key = partition.flow(str(raw, "utf-8"))
                fields = await store.execute("HGETALL", key)
                found.append(f"{key}")
                found += [f"  {n!r}: {v!r}" for n, v in zip(fields[::2], fields[1::2], strict=True)]
        return "\n".join(found)

    async def _leftovers(self, store: Store) -> list[Broken]:
        """I8: nothing stays pending, in a stream, or among the timers.

        A schedule may go on and bring new ones: what was there at every look has been left behind.
        """
        give_up = time.monotonic() + DRAIN_LEASES * self.plan.lease
        left = await _waiting_things(store)
        while left and time.monotonic() < give_up:
            await asyncio.sleep(DRAIN_POLL)
            left &= await _waiting_things(store)
        return [Broken("I8", "-", thing) for thing in sorted(left)]

    async def _judge_ticks(self, client: Client, load: Load) -> None:
        """The runs that a schedule started: judged like the others, each tick once."""
        found = await client.list(flow=app.every_second.name, limit=10_000)
        if not found and self.plan.seconds:  # a drill may be over before the first
            load.broken.append(Broken("I9", "-", "the schedule of every second started nothing"))
        headers = await runs.read_headers(client.store, [run.id for run in found])
        for header in headers:
            if not isinstance(header, runs.Header) or header.status in OPEN:
                continue
            plan = await client.directory.plan(header.plan)
            assert plan is not None
            snapshot = await Snapshot.read(client.store, header, plan)
            ended, broken = judge_run(snapshot, was_stopped=False)
            load.ended[header.id] = ended
            load.broken += broken

    def _judge(self, cluster: Cluster, load: Load) -> None:
        report = self.report
        self._lines += self._reader.fresh()
        lines = oracle.in_order(self._lines)
        report.account = judge_lines(lines, load.ended, cluster.cut_off, lease=self.plan.lease)
        report.broken += [*load.broken, *report.account.broken]
        report.runs = len(load.ended)
        report.nodes = sum(run.nodes for run in load.ended.values())
        report.attempts = sum(run.attempts for run in load.ended.values())
        report.crashes = sum(run.crashes for run in load.ended.values())
        report.repeated = [line for run in load.ended.values() for line in run.repeated]
        report.poisoned = sum(run.is_poisoned for run in load.ended.values())
        report.recovery = _recoveries(lines, cluster)

    async def _tell_histories(self, client: Client) -> None:
        for one in self.report.broken[:5]:
            if one.run != "-" and one.run not in self.report.histories:
                run: FlowRun[object] = FlowRun(client, one.run)
                try:
                    self.report.histories[one.run] = to_json(await run.history())
                except ResoluteError as error:  # past its retention, or damaged
                    self.report.histories[one.run] = str(error)

    def _memory(self, cluster: Cluster) -> dict[str, float]:
        """Resident MB, the largest of each kind."""
        children = [child for member in cluster.workers for child in member.children()]
        pids = {
            "Redis": [cluster.system.server.pid],
            "worker process": children,
            "coordinator": [member.process.pid for member in cluster.coordinators],
        }
        return {
            name: max((resident_bytes(pid) for pid in found), default=0) / 2**20
            for name, found in pids.items()
        }


async def _stat(store: Store, name: str) -> int:
    found = [await store.execute("HGET", p.stats, name) for p in store.keys.partitions]
    return sum(int(value or 0) for value in found)


async def _waiting_things(store: Store) -> set[str]:
    """Every entry in a stream or a pending list, and every timer, by a name of its own."""
    found: set[str] = set()
    for stream, group in streams_of(store):
        entries, pending = await store.execute_all(
            [("XRANGE", stream, "-", "+"), ("XPENDING", stream, group, "-", "+", MANY)]
        )
        found |= {f"{stream}: entry {str(entry[0], 'ascii')}" for entry in entries}
        found |= {f"{stream}: {str(row[0], 'ascii')} is pending" for row in pending}
    for partition in store.keys.partitions:
        members = await store.execute("ZRANGE", partition.timers, 0, -1)
        found |= {f"{partition.timers}: {member!r}" for member in members}
    return found


def _recoveries(lines: Sequence[oracle.Line], cluster: Cluster) -> dict[str, list[Recovery]]:
    """For each node that ran in a process when it was killed: seconds until it ran again."""
    starts: dict[tuple[str, int, int], list[oracle.Line]] = {}
    over: set[str] = set()
    for line in lines:
        if line.what == "start":
            starts.setdefault((line.run, line.seq, line.index), []).append(line)
        elif line.what in ("end", "stop"):
            over.add(line.mark)
    killed: dict[int, list[Kill]] = {}  # a pid may be another's later
    for kill in cluster.kills:
        for pid in kill.pids:
            killed.setdefault(pid, []).append(kill)
    found: dict[str, list[Recovery]] = {}
    for executions in starts.values():
        for older, newer in pairwise(executions):
            kills = killed.get(older.pid, ())
            kill = next((one for one in kills if older.at < one.at < newer.at), None)
            if kill is not None and older.mark not in over:
                node = f"{newer.node} {newer.seq}.{newer.index} of run {newer.run}"
                found.setdefault(kill.what, []).append(Recovery(newer.at - kill.at, node))
    return found


def summary(found: Sequence[Recovery]) -> tuple[int, float, Recovery]:
    """How many, their median in seconds and the longest."""
    return len(found), statistics.median(one.seconds for one in found), max(found)
