"""What dies is replaced, and nothing is lost: workers, coordinators and servers, by SIGKILL."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest

from resolute import Client, FlowFailed
from resolute.status import NodeStatus, RunStatus
from resolute.store import registry
from resolute.testing.server import ServerBinary
from tests.e2e import app
from tests.e2e.app import Word
from tests.e2e.held import holder, start_held
from tests.support.processes import children_of
from tests.support.system import System, until


async def stale_attempts(client: Client) -> int:
    """How many commits the fence refused so far."""
    counts = [
        await client.store.execute("HGET", partition.stats, "stale_attempts")
        for partition in client.store.keys.partitions
    ]
    return sum(int(count or 0) for count in counts)


def test_a_node_whose_process_was_killed_runs_again(system: System) -> None:
    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "hold", processes=2)
            one = await start_held(system, client, "k")
            os.kill(holder(system, "k"), signal.SIGKILL)
            await until(lambda: len(system.lines("held", "k")) == 2, "it runs again")
            system.release("k")
            assert await one.result() == "k!"
            held = (await one.history())[1]
            assert (held.attempts, held.crashes) == (1, 1)
            assert len(system.lines("after", "k")) == 1

    asyncio.run(run())


def test_nodes_of_a_killed_supervisor_run_elsewhere_after_the_lease(system: System) -> None:
    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "hold", processes=2)
            one = await start_held(system, client, "s")
            old = holder(system, "s")
            system.processes[1].kill()
            system.worker("--processes", "1")
            await until(lambda: len(system.lines("held", "s")) == 2, "it runs again")
            assert holder(system, "s") != old
            system.release("s")
            assert await one.result() == "s!"

    asyncio.run(run())


def test_runs_go_on_when_the_last_coordinator_was_killed_and_another_comes(
    system: System,
) -> None:
    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "hold")
            one = await start_held(system, client, "c")
            system.processes[0].kill()
            system.processes[0].wait()
            system.release("c")
            await until(lambda: bool(system.lines("let-go", "c")), "the node has ended")
            accepted = await client.start(app.hold, Word("d"))
            system.release("d")
            system.coordinator()
            assert await one.result() == "c!"
            assert await accepted.result() == "d!"
            assert len(system.lines("after", "c")) == 1

    asyncio.run(run())


def test_nothing_acknowledged_is_lost_when_the_server_is_killed(
    make_system: Callable[..., System], binary: ServerBinary
) -> None:
    system = make_system(binary, appendfsync="always")
    system.coordinator()
    system.worker("--processes", "2")

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "branching", processes=2)
            held = await start_held(system, client, "h")
            runs = await client.start_many(app.branching, [Word(f"r{i}") for i in range(300)])
            system.server.kill()
            system.server.restart()
            system.release("h")
            results = await asyncio.gather(*(one.result() for one in runs))
            assert results == ["normal"] * 300
            assert await held.result() == "h!"
            record = (await held.history())[1]
            assert (record.attempts, record.crashes) == (1, 0)
            assert len(system.lines("held", "h")) == 1, "it was not stopped for a short outage"

    asyncio.run(run())


def test_a_process_that_slept_beyond_its_lease_cannot_commit(system: System) -> None:
    """Supervisor and process are stopped together; another worker takes the node over."""

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "hold", processes=2)
            one = await start_held(system, client, "z")
            zombie, before = holder(system, "z"), (await one.history())[1].process
            supervisor = system.processes[1]
            processes = children_of(supervisor.pid)
            for pid in (supervisor.pid, *processes):
                os.kill(pid, signal.SIGSTOP)
            system.worker("--processes", "1")
            await until(lambda: len(system.lines("held", "z")) == 2, "another takes it over")
            system.release("z")
            assert await one.result() == "z!"
            # The supervisor last: as soon as it is awake, it ends and buries the others.
            for pid in (*processes, supervisor.pid):
                os.kill(pid, signal.SIGCONT)

            async def refused_or_stopped() -> bool:
                was_killed = zombie not in children_of(supervisor.pid)
                return was_killed or await stale_attempts(client) >= 1

            await until(refused_or_stopped, "the zombie is refused")
            assert len(system.lines("after", "z")) == 1
            held = (await one.history())[1]
            assert held.status is NodeStatus.COMPLETED
            assert held.process not in ("", before)

    asyncio.run(run())


def test_a_server_stalled_for_less_than_a_lease_costs_no_attempt(system: System) -> None:
    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "hold", processes=2)
            one = await start_held(system, client, "p")
            system.server.pause()
            await asyncio.sleep(1.0)  # the stall itself, a third of the lease
            system.server.resume()
            system.release("p")
            assert await one.result() == "p!"
            held = (await one.history())[1]
            assert (held.attempts, held.crashes) == (1, 0)
            assert len(system.lines("held", "p")) == 1

    asyncio.run(run())


def test_an_outage_longer_than_the_lease_stops_nodes_and_costs_no_attempt(
    system: System,
) -> None:
    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "hold", processes=2)
            one = await start_held(system, client, "o")
            before = set(children_of(system.processes[1].pid))
            system.server.kill()
            await until(lambda: bool(system.lines("stopped", "o")), "the node is stopped")
            system.server.restart()
            await until(lambda: len(system.lines("held", "o")) == 2, "it runs again")
            system.release("o")
            assert await one.result() == "o!"
            held = (await one.history())[1]
            assert (held.attempts, held.crashes) == (1, 0)
            assert set(children_of(system.processes[1].pid)) == before

    asyncio.run(run())


def test_a_node_that_kills_its_process_each_time_fails_as_poison(system: System) -> None:
    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "poisonous", processes=2)
            poison = await client.start(app.poisonous, Word("x"))
            innocents = await client.start_many(app.branching, [Word(f"i{i}") for i in range(100)])
            with pytest.raises(FlowFailed, match="Poison: 3 processes died"):
                await poison.result()
            assert len(system.lines("killer", "x")) == 3
            results = await asyncio.gather(*(one.result() for one in innocents))
            assert results == ["normal"] * 100

    asyncio.run(run())


@pytest.mark.parametrize(
    ("flow", "is_replaced"),
    [
        (app.hanging, False),
        (app.ignoring, True),
        (app.blocked, True),
        (app.greedy_flow, True),
        (app.threaded, True),
    ],
    ids=["cancellable", "ignores-cancellation", "blocks-the-loop", "holds-the-gil", "thread"],
)
def test_a_node_that_overruns_fails_by_timeout_and_its_slot_comes_back(
    system: System, flow: Any, is_replaced: bool
) -> None:
    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "hold", processes=2)
            before = set(children_of(system.processes[1].pid))
            neighbours = [await start_held(system, client, f"n{i}") for i in range(4)]
            one = await client.start(flow, Word("o"))
            with pytest.raises(FlowFailed, match=r"NodeTimeout: node .* ran longer than"):
                await one.result()
            failed = (await one.history())[0]
            assert (failed.attempts, failed.crashes) == (1, 0)
            assert (set(children_of(system.processes[1].pid)) != before) == is_replaced
            for number, neighbour in enumerate(neighbours):
                system.release(f"n{number}")
                assert await neighbour.result() == f"n{number}!"
                held = (await neighbour.history())[1]
                assert (held.attempts, held.crashes) == (1, 0)

    asyncio.run(run())


def test_a_process_that_is_killed_while_a_beat_is_under_way_takes_no_other_with_it(
    make_system: Callable[..., System], one_binary: ServerBinary
) -> None:
    """The beat is answered after its process has gone."""
    system = make_system(one_binary)
    system.coordinator()
    lease = 6.0  # s; a beat each 2 s, and a node that is killed 2.5 s after it began
    worker = system.worker("--lease", str(lease), "--kill-grace", "2.2")

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "hold")
            (blocked,) = children_of(worker.pid)

            async def beat_of(pid: int) -> int:
                known = (await registry.processes(client.store)).values()
                (name,) = [process.name for process in known if process.pid == pid] or [""]
                return (await registry.beats(client.store)).get(name, 0)

            before = await beat_of(blocked)

            async def has_beaten() -> bool:
                return await beat_of(blocked) > before

            await until(has_beaten, "its next beat is a third of a lease away")
            one = await client.start(app.blocked, Word("b"))
            await until(lambda: bool(system.lines("blocking", "b")), "the node runs")
            system.server.pause()
            await until(lambda: blocked not in children_of(worker.pid), "its process is killed")
            system.server.resume()

            async def another_beats() -> bool:
                return any([await beat_of(pid) > 1 for pid in children_of(worker.pid)])

            await until(another_beats, "its supervisor goes on")
            with pytest.raises(FlowFailed, match="NodeTimeout"):
                await one.result()

    asyncio.run(run())


def test_a_worker_told_to_end_finishes_or_hands_back_what_it_runs(system: System) -> None:
    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "hold", processes=2)
            finished = await start_held(system, client, "f")
            handed_back = await start_held(system, client, "b")
            first_worker = system.processes[1]
            second = system.worker("--processes", "1", "--grace", "1")
            await system.offered(client, "hold", processes=3)
            assert second.poll() is None
            system.release("f")
            assert await finished.result() == "f!"
            first_worker.send_signal(signal.SIGTERM)
            system.release("b")
            assert await handed_back.result() == "b!"
            first_worker.wait(40)
            assert first_worker.returncode == 0
            held = (await handed_back.history())[1]
            assert (held.attempts, held.crashes) == (1, 0)

    asyncio.run(run())


def test_what_does_not_finish_within_the_grace_runs_elsewhere(
    make_system: Callable[..., System], one_binary: ServerBinary
) -> None:
    system = make_system(one_binary)
    system.coordinator()
    leaving = system.worker("--grace", "0.2")

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "hold")
            one = await start_held(system, client, "g")
            leaving.send_signal(signal.SIGTERM)
            leaving.wait(40)
            assert "do not stop" not in system.logs()
            system.worker()
            await until(lambda: len(system.lines("held", "g")) == 2, "it runs elsewhere")
            system.release("g")
            assert await one.result() == "g!"
            held = (await one.history())[1]
            assert (held.attempts, held.crashes) == (1, 0)

    asyncio.run(run())


def test_a_run_whose_plan_no_worker_has_waits_and_goes_on_by_itself(
    make_system: Callable[..., System], one_binary: ServerBinary
) -> None:
    system = make_system(one_binary)
    system.coordinator()
    old = system.worker("--grace", "0.2")

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "hold")
            one = await start_held(system, client, "v")
            old.send_signal(signal.SIGTERM)
            old.wait(40)
            other = system.worker(app="tests.e2e.other_version")

            async def moved() -> bool:
                plan = (await one.info()).plan
                stream = client.store.keys.partitions[0].queue("e2e", plan)
                return int(await client.store.execute("XLEN", stream)) == 1

            await until(moved, "its entry is in the stream of its plan")
            assert await one.status() is RunStatus.RUNNING
            newer = await client.start("hold", {"text": "new"})
            assert await newer.result() == "another version"
            system.worker()
            await until(lambda: len(system.lines("held", "v")) == 2, "its own version runs it")
            system.release("v")
            assert await one.result() == "v!"
            assert other.poll() is None

    asyncio.run(run())
