"""The faults of the soak, by their numbers in the table of faults.

Each breaks something, waits, and heals it. What it chooses comes from its own generator, seeded by
the schedule, so that the same seed gives the same faults in the same order.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec

from resolute.priority import lanes_of
from resolute.store.connection import ServerReply
from resolute.store.script import GROUP_COORDINATORS, GROUP_WORKERS
from resolute.store.store import Store
from tests.faults.app import DOWN, QUEUE
from tests.faults.cases import HARSH, USUAL
from tests.faults.cluster import Cluster, Member
from tests.faults.load import Load
from tests.faults.oracle import is_running
from tests.support.system import until


@dataclass
class Scene:
    """What a fault acts upon."""

    cluster: Cluster
    load: Load
    store: Store  # past every proxy
    random: Random
    standstill: float = 0.0  # s for which a fault may hold everything up, beyond what is usual

    @property
    def lease(self) -> float:
        return self.cluster.lease

    def some(self, members: Sequence[Member]) -> Member:
        return self.random.choice(list(members))

    async def is_busy(self) -> None:
        """Wait until the load is under way, or under way again."""
        done = len(self.load.ended)
        await until(lambda: len(self.load.ended) > done + 5, "runs come to their ends")

    async def pass_time(self, least: float, most: float) -> None:
        """Let a fault last: the one thing that a fault does for a while."""
        await asyncio.sleep(self.random.uniform(least, most))

    async def command(self, *words: str | int | bytes) -> object:
        """Sent once, past every proxy; a server that refuses it is the fault's own doing."""
        try:
            return await self.cluster.admin.execute(*words)
        except ServerReply:
            return None

    def running(self, pids: Iterable[int], node: str = "") -> list[int]:
        """Those of the processes that run a node, whose name begins so, by the oracle."""
        return [pid for pid in pids if is_running(self.cluster.system.folder, pid, node)]

    def streams(self) -> list[tuple[str, str]]:
        return streams_of(self.store)


def streams_of(store: Store) -> list[tuple[str, str]]:
    """The inboxes and the queue's streams, each with its group."""
    partitions = store.keys.partitions
    return [
        *((partition.inbox, GROUP_COORDINATORS) for partition in partitions),
        *((p.queue(lane), GROUP_WORKERS) for p in partitions for lane in lanes_of(QUEUE)),
    ]


Inject = Callable[[Scene], Coroutine[Any, Any, None]]


@dataclass(frozen=True)
class Fault:
    """One kind of fault. `extra_bursts` are those that a limiter's bucket may give for it (I7)."""

    number: str
    name: str
    inject: Inject
    weight: float = 1.0


FAULTS: list[Fault] = []


def fault(number: str, name: str, weight: float = 1.0) -> Callable[[Inject], Inject]:
    """Adds a function to FAULTS."""

    def add(inject: Inject) -> Inject:
        FAULTS.append(Fault(number, name, inject, weight))
        return inject

    return add


@fault("1", "worker process killed", 3)
async def kill_child(scene: Scene) -> None:
    member = scene.some(scene.cluster.workers)
    children = member.children()
    if children:
        scene.cluster.kill(member, scene.random.choice(children))


@fault("1", "supervisor killed", 2)
async def kill_supervisor(scene: Scene) -> None:
    await _kill_for_a_while(scene, scene.some(scene.cluster.workers))


@fault("2", "coordinator killed", 2)
async def kill_coordinator(scene: Scene) -> None:
    await _kill_for_a_while(scene, scene.some(scene.cluster.coordinators))


async def _kill_for_a_while(scene: Scene, member: Member) -> None:
    scene.cluster.kill(member)
    await scene.pass_time(0.0, 2.0)
    scene.cluster.start_again(member)


@fault("2", "no coordinator")
async def kill_coordinators(scene: Scene) -> None:
    for member in scene.cluster.coordinators:
        scene.cluster.kill(member)
    await scene.pass_time(2.0, 6.0)
    for member in scene.cluster.coordinators:
        scene.cluster.start_again(member)


@fault("3", "Redis killed", 2)
async def kill_server(scene: Scene) -> None:
    server = scene.cluster.system.server
    await asyncio.to_thread(server.kill)
    await scene.pass_time(0.0, 5.0)
    await asyncio.to_thread(server.start)


@fault("5", "scripts flushed")
async def flush_scripts(scene: Scene) -> None:
    await scene.command("SCRIPT", "FLUSH")


@fault("5", "group destroyed")
async def destroy_group(scene: Scene) -> None:
    stream, group = scene.random.choice(scene.streams())
    await scene.command("XGROUP", "DESTROY", stream, group)


@fault("5", "stream deleted")
async def delete_stream(scene: Scene) -> None:
    stream, _ = scene.random.choice(scene.streams())
    await scene.command("DEL", stream)


@fault("6", "worker cut off", 2)
async def cut_off_worker(scene: Scene) -> None:
    hard = scene.random.random() < 0.5
    seconds = scene.lease * scene.random.uniform(0.3, 2.0)
    await scene.cluster.isolate(scene.some(scene.cluster.workers), seconds, hard=hard)


@fault("6", "coordinator cut off")
async def cut_off_coordinator(scene: Scene) -> None:
    seconds = scene.lease * scene.random.uniform(0.3, 1.5)
    await scene.cluster.isolate(scene.some(scene.cluster.coordinators), seconds)


@fault("7", "worker frozen", 2)
async def freeze_worker(scene: Scene) -> None:
    """Supervisor, child or both, for longer than a lease."""
    member = scene.some(scene.cluster.workers)
    pids = member.pids()
    chosen = scene.random.choice((pids, pids[:1], pids[1:2]))
    await scene.cluster.freeze(chosen, scene.lease * scene.random.uniform(1.1, 2.0))


@fault("7", "coordinator frozen")
async def freeze_coordinator(scene: Scene) -> None:
    member = scene.some(scene.cluster.coordinators)
    await scene.cluster.freeze(member.pids(), scene.lease * scene.random.uniform(0.5, 2.0))


@fault("8", "answers lost", 2)
async def lose_answers(scene: Scene) -> None:
    for proxy in scene.cluster.proxies:
        proxy.loss = scene.random.choice((0.01, 0.05))
    await scene.pass_time(1.0, 3.0)
    for proxy in scene.cluster.proxies:
        proxy.loss = 0.0


@fault("9", "entries doubled")
async def double_entries(scene: Scene) -> None:
    """Each entry that is in a stream once more; stale ones too, since some are done by then."""
    copies: list[tuple[str, bytes]] = []
    for stream, _ in scene.streams():
        for _, fields in await scene.store.execute("XRANGE", stream, "-", "+", "COUNT", 200):
            copies.append((stream, fields[1]))
    await scene.pass_time(0.0, 1.0)
    scene.random.shuffle(copies)
    for stream, payload in copies:
        await scene.command("XADD", stream, "*", "e", payload)


@fault("10", "overload")
async def overload(scene: Scene) -> None:
    scene.load.start(USUAL[0], 500)
    await scene.pass_time(0.5, 1.0)


GARBAGE = (
    b"",
    b"\xc1\xff",
    msgspec.msgpack.encode({"not": "an entry"}),
    msgspec.msgpack.encode(("nobody", "no-such-plan", 0, 1, 0, "1-x.0", 1, 0, 0)),
    msgspec.msgpack.encode(("settled", "nobody", "no-such-plan", 0, 1, "1-x", "q", "")),
)


@fault("12", "garbage in a stream")
async def add_garbage(scene: Scene) -> None:
    for stream, _ in scene.streams():
        await scene.command("XADD", stream, "*", "e", scene.random.choice(GARBAGE))


@fault("13", "ill-behaved nodes")
async def misbehave(scene: Scene) -> None:
    for case in HARSH:
        scene.load.start(case)


@fault("16", "dependency down")
async def break_dependency(scene: Scene) -> None:
    down = scene.cluster.system.folder / DOWN
    down.touch()
    scene.load.start(HARSH[-1], 20)
    await scene.pass_time(1.0, 4.0)
    down.unlink(missing_ok=True)


@fault("18", "rolling restart")
async def restart_workers(scene: Scene) -> None:
    for member in scene.cluster.workers:
        member.is_down = True
        member.process.send_signal(signal.SIGTERM)
        await asyncio.to_thread(member.process.wait)
        scene.cluster.start_again(member)


@fault("19", "memory full")
async def fill_memory(scene: Scene) -> None:
    await scene.command("CONFIG", "SET", "maxmemory", "1mb")
    await scene.pass_time(0.5, 2.0)
    await scene.command("CONFIG", "SET", "maxmemory", "0")


@fault("23", "Redis stalled", 2)
async def stall_server(scene: Scene) -> None:
    server = scene.cluster.system.server
    await asyncio.to_thread(server.pause)
    await scene.pass_time(0.2, scene.lease * 0.6)
    server.resume()


@fault("24", "connections refused")
async def refuse_connections(scene: Scene) -> None:
    """Too many clients: those that are there stay, so they are all dropped first."""
    await scene.command("CONFIG", "SET", "maxclients", "1")
    for proxy in scene.cluster.proxies:
        proxy.reset_all()
    await scene.pass_time(0.5, 2.0)
    await scene.command("CONFIG", "SET", "maxclients", "10000")


def chosen(names: str) -> list[Fault]:
    """The faults of a list of numbers, ``all`` or ``none``. Raises ValueError."""
    if names == "all":
        return list(FAULTS)
    if names == "none":
        return []
    wanted = {name.strip() for name in names.split(",")}
    unknown = wanted - {one.number for one in FAULTS}
    if unknown:
        known = ", ".join(dict.fromkeys(one.number for one in FAULTS))
        raise ValueError(f"faults: expected all, none or some of {known}, got {sorted(unknown)}")
    return [one for one in FAULTS if one.number in wanted]
