"""Fault 12: what nobody can read, in the streams and in the hashes of runs."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import msgspec

from resolute import Client, Flow, FlowRun
from resolute.cli.show.snapshot import take_snapshot
from resolute.cli.show.waiting import WaitKind
from resolute.errors import ResoluteError
from resolute.model.messages import Entry, Event
from resolute.status import EventKind
from resolute.store import registry
from tests.faults import app
from tests.faults.app import QUEUE, Work
from tests.faults.conftest import Drill, MakeSystem
from tests.faults.nemesis import Scene
from tests.support.processes import children_of
from tests.support.system import until

_encode = msgspec.msgpack.encode


def garbage(random: Random, plan: str) -> dict[str, list[bytes]]:
    """What can be no entry of a queue, and no event of the inbox, by where it is put."""
    noise = [b"", b"\xc1", random.randbytes(random.randrange(1, 64)), random.randbytes(100_000)]
    entry = _encode(Entry("nobody", plan, 0, 1, 0, "1-x.0"))
    event = _encode(Event(EventKind.SETTLED, "nobody", plan, 0, 1, "1-x", QUEUE))
    no_text = entry.replace(b"nobody", b"n\xecbody")  # its text is no UTF-8
    no_node = _encode(Entry("nobody", plan, 0, 1, 99, "1-x.0"))
    no_words = event.replace(b"nobody", b"n\xecbody")
    no_step = _encode(Event(EventKind.SETTLED, "nobody", plan, 99, 1, "1-x", QUEUE))
    cut = random.randrange(1, len(entry) - 1)
    return {
        QUEUE: [*noise, entry[:cut], event, no_node, no_text],
        "inbox": [*noise, event[: cut % (len(event) - 1) or 1], entry, no_step, no_words],
    }


def test_12_garbage_becomes_dead_letters_with_its_raw_bytes_and_the_queue_goes_on(
    drill: Drill,
) -> None:
    async def scenario(scene: Scene) -> None:
        await scene.is_busy()
        expected = await put_garbage(scene)
        await scene.is_busy()
        async with Client.connect(scene.cluster.system.server.url) as client:

            async def are_buried() -> bool:
                return await buried(client) == expected

            await until(are_buried, "all of it is a dead letter, and nothing else")
            ids = [letter.id for letter in await client.dead_letters(limit=1000)]
            back = await client.retry_dead_letters(all=True)
            assert sorted(back) == sorted(ids)
            await until(are_buried, "it is one again")
            assert not {letter.id for letter in await client.dead_letters(limit=1000)} & set(ids)
        await scene.is_busy()

    report = drill(scenario)
    assert report.crashes == 0


async def put_garbage(scene: Scene) -> Counter[tuple[str, bytes]]:
    """Garbage into every stream, in random order; what it is, by where it came from."""
    async with Client.connect(scene.cluster.system.server.url) as client:
        plan = (await client.directory.offered(app.sequence.name)).plan.hash
    put: Counter[tuple[str, bytes]] = Counter()
    for partition in scene.store.keys.partitions:
        for origin, payloads in garbage(scene.random, plan).items():
            stream = partition.inbox if origin == "inbox" else partition.queue(QUEUE)
            scene.random.shuffle(payloads)
            for payload in payloads:
                await scene.command("XADD", stream, "*", "e", payload)
                put[origin, payload] += 1
            await scene.command("XADD", stream, "*", "strange", "field")
            put[origin, _encode(["strange", "field"])] += 1
    return put


async def buried(client: Client) -> Counter[tuple[str, bytes]]:
    letters = [await client.dead_letter(one.id) for one in await client.dead_letters(limit=1000)]
    return Counter((letter.origin, letter.raw or b"") for letter in letters)


def flipped(random: Random, value: bytes) -> bytes:
    """A value with one bit of it turned."""
    if not value:
        return b"?"
    at = random.randrange(len(value))
    return value[:at] + bytes([value[at] ^ 1 << random.randrange(8)]) + value[at + 1 :]


def test_12_a_damaged_run_is_visible_and_stops_no_other(
    make_system: MakeSystem, random: Random
) -> None:
    """A run for each field of a hash, with a bit of that field turned while its nodes run or wait.

    Then one of the processes that run them is killed, so that they are also taken back.
    """
    system = make_system()
    (system.folder / app.DOWN).touch()
    coordinator = system.coordinator()
    worker = system.worker("--processes", "2", app="tests.faults.app", queue=QUEUE)

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, app.long.name, processes=2)
            children = children_of(worker.pid)
            damaged: dict[str, FlowRun[Any]] = {}
            for flow, node in ((app.long, "n:2.0"), (app.depending, "n:2.0")):
                damaged |= await damage(client, random, flow, node)
            neighbours = await client.start_many(app.long, [Work(1)] * 10)
            neighbours += await client.start_many(app.depending, [Work(1)] * 10)
            os.kill(random.choice(children), signal.SIGKILL)
            (system.folder / app.DOWN).unlink()
            for one in neighbours:
                assert isinstance(await one.result(), app.Made)
            for what, one in damaged.items():

                async def is_told(one: FlowRun[Any] = one) -> bool:
                    return await is_over_or_visible(client, one)

                await until(is_told, f"the run whose {what} was damaged has ended or is visible")
            await until(
                lambda: no_longer_registered(client, 2), "the dead process was cleared away"
            )
            assert coordinator.poll() is None
            assert len(set(children_of(worker.pid)) & set(children)) == 1
            assert "Traceback" not in system.logs()

    asyncio.run(run())


async def damage(
    client: Client, random: Random, flow: Flow[Work, Any], node: str
) -> dict[str, FlowRun[Any]]:
    """Runs of a flow, each with a field damaged once `node` was handed out, by what was damaged."""

    async def begun(made: Sequence[FlowRun[Any]]) -> bool:
        keys = [key_of(client, one) for one in made]
        return all(await client.store.execute_all([("HGET", key, node) for key in keys]))

    async def started(count: int) -> list[FlowRun[Any]]:
        made = await client.start_many(flow, [Work(1)] * count)
        await until(lambda: begun(made), f"{node} was handed out in each")
        return made

    (first,) = await started(1)
    names = [str(n, "utf-8") for n in await client.store.execute("HKEYS", key_of(client, first))]
    found: dict[str, FlowRun[Any]] = {}
    for name, one in zip(names, await started(len(names)), strict=True):
        value = await client.store.execute("HGET", key_of(client, one), name) or b""
        wrong = flipped(random, value)
        await client.store.execute("HSET", key_of(client, one), name, wrong)
        found[f"{name} ({value[:99]!r} to {wrong[:99]!r}, {flow.name})"] = one
    return found


def key_of(client: Client, run: FlowRun[Any]) -> str:
    return client.store.keys.of(run.id).flow(run.id)


async def is_over_or_visible(client: Client, run: FlowRun[Any]) -> bool:
    """Whether it has ended, or whoever looks at it is told what is wrong."""
    try:
        snapshot = await take_snapshot(client, run.id)
    except ResoluteError:  # its hash is damaged, its plan is not there
        return True
    telling = {WaitKind.WORKER, WaitKind.COORDINATOR, WaitKind.RETRY}
    waits = any(wait.kind in telling for wait in snapshot.waits)
    return snapshot.run.status.is_terminal or bool(snapshot.dead_letters) or waits


async def no_longer_registered(client: Client, processes: int) -> bool:
    """Whether only so many worker processes are known."""
    known = (await registry.processes(client.store)).values()
    return sum(process.kind == "worker" for process in known) == processes
