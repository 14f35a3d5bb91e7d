"""Crash points under load: victims that die, stop, fail or dawdle at a call to Redis.

An unarmed worker and coordinator keep the system moving. Beside them, in lanes, victims are started
one after the other, each armed with one point; when it has fired (or nothing came by), the next one
takes its place. The checker judges all runs at the end.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from resolute import Client
from resolute.store.store import Store
from resolute.testing.server import EmbeddedServer, ServerBinary
from tests.faults import app, oracle
from tests.faults.app import QUEUE
from tests.faults.cases import CASES, HARSH, USUAL
from tests.faults.checker.broken import Broken
from tests.faults.checker.ended import judge_letters, read_buried
from tests.faults.checker.lines import CutOff, judge_lines
from tests.faults.cluster import Cluster, Member
from tests.faults.load import Load
from tests.faults.nemesis import Scene, add_garbage, delete_stream
from tests.faults.points import Action, Phase, Point, Spec, fired_in, reached, sites
from tests.support.leaks import find_leaks
from tests.support.processes import send
from tests.support.system import ROOT, System, first_use

LEASE = 3.0  # s
PATIENCE = 6.0  # s a victim lives without coming by a point,
PATIENT_RUNS = 200  # and so many runs end beside it meanwhile: a busy machine has more patience,
MOST_PATIENCE = 30.0  # s, but no more than this: what is broken may end no runs
VISIT = 4.0  # s a victim lives where nothing is to fire
TOGETHER = 8  # points of a victim that survives them
LANES = ("worker", "worker", "coordinator", "coordinator", "client")
LITTER_PERIOD = 4.0  # s between things that only a fault brings about
RETENTION = "20s"
PLACE = ("nobody|1|0|nowhere|1-0", "nobody|1")  # of a process that died with it

LANE = {"supervisor": "worker", "child": "worker", "coordinator": "coordinator", "client": "client"}


def all_points(pairs: Iterable[tuple[str, str]]) -> list[Point]:
    """Every phase and action of every (program, site)."""
    return [
        Point(program, site, phase, action)
        for program, site in sorted(pairs)
        for phase in Phase
        for action in Action
    ]


def batches(points: Sequence[Point]) -> list[tuple[Point, ...]]:
    """What victims are armed with: who dies has one point, who lives on has several."""
    found: list[tuple[Point, ...]] = []
    gentle: dict[tuple[str, Action], list[Point]] = {}
    for point in points:
        if point.action is Action.KILL:
            found.append((point,))
            continue
        group = gentle.setdefault((point.program, point.action), [])
        group.append(point)
        if len(group) == TOGETHER:
            found.append(tuple(group))
            group.clear()
    found += [tuple(group) for group in gentle.values() if group]
    return found


@dataclass
class Outcome:
    """What a run through the gauntlet came to; `never` are the sites that were not reached."""

    points: list[Point] = field(default_factory=list[Point])
    never: set[str] = field(default_factory=set[str])
    fired: list[Point] = field(default_factory=list[Point])
    missed: list[Point] = field(default_factory=list[Point])
    runs: int = 0
    broken: list[Broken] = field(default_factory=list[Broken])


class Gauntlet:
    """One system, and victims on it. `say` gets a line for each point."""

    def __init__(
        self,
        folder: Path,
        seed: int,
        say: Callable[[str], None],
        *,
        binary: ServerBinary | None = None,
        partitions: int = 1,
    ) -> None:
        self._folder = folder
        self._seed = seed
        self._random = Random(seed)
        self._say = say
        self._binary = binary
        self._partitions = partitions
        self._count = 0
        self._visitors: list[subprocess.Popen[bytes]] = []
        self._followed: set[str] = set()
        self.outcome = Outcome()

    async def run(self, known: set[str], *, recording: float, seconds: float = 0.0) -> Outcome:
        """Have the known sites reached, then let the points of all that were reached fire.

        For the first there are `recording` seconds at most; of the points, in the seed's order, as
        many fire as `seconds` are enough for (0: all).
        """
        (self._folder / "server").mkdir(parents=True)
        (self._folder / "oracle").mkdir()
        # `always`, so that visitors may ask for `fsync` of any server.
        server = EmbeddedServer(self._folder / "server", binary=self._binary, appendfsync="always")
        async with AsyncExitStack() as stack:
            await asyncio.to_thread(server.start)
            stack.callback(server.stop)
            await first_use(server.url, self._partitions)
            system = System(server, self._folder / "oracle")
            self._cluster = Cluster(system, self._random, LEASE)
            stack.push_async_callback(self._cluster.close)
            stack.callback(self._end_visitors)
            # These note what they come by, too: they live longest.
            armed = self._spec().environment()
            self._cluster.add_coordinator("--retention", RETENTION, **armed)
            self._cluster.add_worker("--processes", "2", **armed)
            store = await Store.open(server.url, patience=60.0)
            client = await stack.enter_async_context(Client.connect(server.url, patience=60.0))
            await system.offered(client, app.sequence.name)
            load = Load(client, system.folder, self._random, USUAL[:-1], 15)
            scene = Scene(self._cluster, load, store, self._random)
            await self._play(scene, known, recording, seconds)
            self._judge(load)
            self.outcome.broken += judge_letters(await read_buried(store))
            await self._cluster.close()
            leaks = await find_leaks(store)
            self.outcome.broken += [Broken("I8", "-", leak) for leak in leaks]
            await store.close()
        return self.outcome

    async def _play(self, scene: Scene, known: set[str], recording: float, seconds: float) -> None:
        stopped = asyncio.Event()
        background = [
            asyncio.create_task(scene.load.run(stopped)),
            asyncio.create_task(self._follow_visitors(scene.load, stopped)),
            asyncio.create_task(self._litter(scene, stopped)),
        ]
        await self._record(scene, known, time.monotonic() + recording)
        pairs = reached(self._folder / "points")
        self.outcome.never = known - {site for _, site in pairs}
        self.outcome.points = points = all_points(pairs)
        Random(self._seed).shuffle(points)
        self._say(f"points: {len(points)} at {len(pairs)} calls")
        todo = batches(points)
        until_when = time.monotonic() + seconds if seconds else float("inf")
        await asyncio.gather(*(self._lane(scene, lane, todo, until_when) for lane in LANES))
        self._end_visitors()
        stopped.set()
        await asyncio.gather(*background)
        await scene.load.drained()
        for partition in scene.store.keys.partitions:
            await scene.command("ZREM", partition.open, "nobody")  # what was littered last
        await scene.command("HDEL", _room(scene), PLACE[0])

    async def _record(self, scene: Scene, known: set[str], until_when: float) -> None:
        """Victims that only note where they come by; they are killed and stopped all the same."""
        visitor = self._start(scene, "client", self._spec())
        folder = self._folder / "points"
        lanes = itertools.cycle(("worker", "coordinator"))
        while time.monotonic() < until_when and known - {site for _, site in reached(folder)}:
            lane = next(lanes)
            victim = self._start(scene, lane, self._spec())
            await asyncio.sleep(VISIT)
            if lane == "coordinator":
                # What it was about to do is done by another, who takes its events over.
                await self._cluster.freeze(victim.pids(), VISIT)
            await self._finish(victim, hard=self._random.random() < 0.5)
        await self._finish(visitor, hard=True)

    async def _lane(
        self, scene: Scene, lane: str, todo: list[tuple[Point, ...]], until_when: float
    ) -> None:
        """One victim after the other, with what no other lane has taken."""
        while time.monotonic() < until_when:
            batch = next((one for one in todo if LANE[one[0].program] == lane), None)
            if batch is None:
                return
            todo.remove(batch)
            await self._one(scene, lane, batch, until_when)

    async def _one(
        self, scene: Scene, lane: str, batch: tuple[Point, ...], until_when: float
    ) -> None:
        spec = self._spec(batch)
        victim = self._start(scene, lane, spec)
        waiting, thaws = set(batch), set[asyncio.Task[None]]()
        finishing: asyncio.Task[None] | None = None
        was_tried = False  # else the time was over before its patience was
        last, ended = time.monotonic(), len(scene.load.ended)
        while finishing is None or not finishing.done():
            await asyncio.sleep(0.02)  # files in another process's hands
            # With its pid: a victim that is ended before it has written that has not fired.
            for point in [point for point in waiting if fired_in(spec.fired(point))]:
                waiting.remove(point)
                last, ended = time.monotonic(), len(scene.load.ended)
                self._say(f"fired  {point}")
                if point.action is Action.STOP:
                    thaws.add(asyncio.create_task(self._thaw(fired_in(spec.fired(point)))))
            is_over = victim.process.poll() is not None or not waiting
            waited = time.monotonic() - last
            many_ended = len(scene.load.ended) - ended >= PATIENT_RUNS
            has_waited = waited > MOST_PATIENCE or (waited > PATIENCE and many_ended)
            was_tried = was_tried or has_waited or is_over
            if finishing is None and (was_tried or time.monotonic() > until_when):
                # Some calls are only made on the way out: there they fire, too.
                finishing = asyncio.create_task(self._finish(victim, hard=False))
        self.outcome.fired += [point for point in batch if point not in waiting]
        if was_tried:
            for point in waiting:
                self._say(f"missed {point}")
            self.outcome.missed += waiting
        await asyncio.gather(finishing, *thaws)

    async def _thaw(self, pid: int) -> None:
        """Let a stopped process lie, at times for longer than a lease, then go on."""
        since = time.monotonic()
        await asyncio.sleep(LEASE * self._random.choice((0.2, 0.4, 1.4)))  # so long it is stopped
        send([pid], signal.SIGCONT)
        self._cluster.cut_off.append(CutOff(pid, since, time.monotonic(), LEASE))

    def _spec(self, points: tuple[Point, ...] = ()) -> Spec:
        """What the next victim is armed with, in a folder of its own."""
        self._count += 1
        folder = self._folder / "points" / str(self._count)
        folder.mkdir(parents=True)
        known = self._folder / "points" / "known"
        if not known.exists():
            known.write_text("\n".join(sorted(sites())))
        delay = self._random.choice((0.3, LEASE * 1.2))
        return Spec(str(folder), str(known), points, delay=delay)

    def _start(self, scene: Scene, lane: str, spec: Spec) -> Member:
        system, environment = scene.cluster.system, spec.environment()
        proxy = scene.cluster.client_proxy
        match lane:
            case "worker":
                process = system.worker(
                    "--kill-grace", "0.3", "--grace", "2s", app="tests.faults.app", queue=QUEUE,
                    **environment,
                )  # fmt: skip
            case "coordinator":
                process = system.coordinator("--retention", RETENTION, **environment)
            case _:
                process = self._start_visitor(system, environment)
        return Member(lane, proxy, (), "", process)

    def _start_visitor(
        self, system: System, environment: dict[str, str]
    ) -> subprocess.Popen[bytes]:
        command = [
            sys.executable, "-m", "tests.faults.visitor", system.server.url, f"v{self._count}"
        ]  # fmt: skip
        with (system.folder / f"visitor-{self._count}.err").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=system.environment(**environment), stdin=subprocess.PIPE,
                stderr=log,
            )  # fmt: skip
        self._visitors.append(process)
        return process

    async def _finish(self, victim: Member, *, hard: bool) -> None:
        """End a victim that is still there: as an operator would, or with SIGKILL."""
        if victim.process.poll() is None:
            if hard or victim.kind == "client":
                victim.process.kill()
            else:
                victim.process.terminate()
        try:
            await asyncio.to_thread(victim.process.wait, 30)
        except subprocess.TimeoutExpired:
            self.outcome.broken.append(Broken("end", "-", f"a {victim.kind} ignored SIGTERM"))
            victim.process.kill()
            victim.process.wait()

    def _end_visitors(self) -> None:
        for process in self._visitors:
            if process.poll() is None:
                process.kill()
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
        self._visitors.clear()

    async def _follow_visitors(self, load: Load, stopped: asyncio.Event) -> None:
        """Have the runs judged that visitors started and were told so."""
        reader = oracle.Reader(self._folder / "oracle")
        last = False
        while not last:
            last = stopped.is_set()
            for line in reader.fresh():
                is_ours = line.what == "started" and line.visited
                if is_ours and line.run not in self._followed:
                    self._followed.add(line.run)
                    load.adopt(line.run, CASES[line.node])
            await asyncio.sleep(0.1)

    async def _litter(self, scene: Scene, stopped: asyncio.Event) -> None:
        """What only a fault brings about, so that the calls that deal with it are made too."""
        down = scene.cluster.system.folder / app.DOWN
        while not stopped.is_set():
            down.touch()  # what depends on it waits for longer than a lease
            await asyncio.sleep(LITTER_PERIOD)
            if self._random.random() < 0.5:
                down.unlink(missing_ok=True)
            await add_garbage(scene)
            for case in HARSH:
                # Who kills its process three times holds everybody up: seldom.
                if case.flow is not app.poisonous or self._random.random() < 0.2:
                    scene.load.start(case)
            for partition in scene.store.keys.partitions:
                await scene.command("ZADD", partition.open, 1, "nobody")
                await scene.command("ZADD", partition.timers, 1, "no timer")
            await scene.command("HSET", _room(scene), *PLACE)
            await scene.command("SCRIPT", "FLUSH")
            if self._random.random() < 0.3:
                await delete_stream(scene)
            await scene.load.replace_slowly()
        down.unlink(missing_ok=True)

    def _judge(self, load: Load) -> None:
        lines = oracle.read_all(self._folder / "oracle")
        account = judge_lines(lines, load.ended, self._cluster.cut_off, lease=LEASE)
        self.outcome.runs = len(load.ended)
        self.outcome.broken += [*load.broken, *account.broken]


def _room(scene: Scene) -> str:
    """The key with the places of a concurrency limit that has one for all runs."""
    held, _, _ = scene.store.keys.meta.places(app.SEATS[1].name, "")
    return held
