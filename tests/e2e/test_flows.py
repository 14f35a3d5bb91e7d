"""Flows run from start to result, whatever their form."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from resolute import (
    FlowCancelled,
    FlowFailed,
    IdConflict,
    InvalidInput,
    UnknownFlow,
    UnknownRun,
    sync,
)
from resolute.status import NodeStatus, RunStatus
from resolute.testing.server import ServerBinary
from tests.e2e import app
from tests.e2e.app import Word
from tests.support.processes import children_of
from tests.support.system import System, until


@pytest.mark.parametrize("partitions", [1, 3])
def test_flows_of_every_form_end_with_their_results(
    make_system: Callable[..., System], binary: ServerBinary, partitions: int
) -> None:
    system = make_system(binary, partitions=partitions)
    system.coordinator()
    system.coordinator()
    system.worker("--processes", "2")

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "wide")
            expected = {20: {"rush": "rush", "late": "late"}, 7: "rush", 1: "normal"}
            for number, result in expected.items():
                branch = await client.start(app.branching, Word("b", number))
                assert await branch.result() == result
            found = await (await client.start(app.best_effort, Word("x"))).result()
            assert found == ["first"]
            wide = await (await client.start(app.wide, Word("w"))).result()
            assert len(wide) == 1200
            tries = await (await client.start(app.retrying, Word("r", 2))).result()
            assert tries == 2
            many = await client.start_many(
                app.branching, [Word(f"m{i}", i % 20) for i in range(200)]
            )
            results = await asyncio.gather(*(one.result() for one in many))
            assert results.count("normal") == 60
            statuses = await client.list(status="completed", flow="branching", limit=500)
            assert len(statuses) == 203

    asyncio.run(run())


def test_parallel_nodes_of_a_step_overlap(system: System) -> None:
    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "three-seconds")
            await (await client.start(app.three_seconds, Word("p"))).result()

    asyncio.run(run())
    starts = [float(line[-1]) for line in system.lines("slow")]
    ends = [float(line[-1]) for line in system.lines("slow-end")]
    assert len(starts) == 3
    assert max(starts) < min(ends)


def test_the_same_id_is_the_same_run_and_another_input_a_conflict(system: System) -> None:
    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "branching")
            one = await client.start(app.branching, Word("same"), id="order-1")
            two = await client.start(app.branching, Word("same"), id="order-1")
            assert one == two
            assert await one.result() == "normal"
            with pytest.raises(IdConflict):
                await client.start(app.branching, Word("other"), id="order-1")
            assert len(system.lines("first", "same")) == 1

    asyncio.run(run())


def test_what_cannot_start_says_why(system: System) -> None:
    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "branching")
            with pytest.raises(UnknownFlow, match="no worker has offered a flow 'nope'"):
                await client.start("nope")
            with pytest.raises(InvalidInput, match="Expected `int`, got `str`"):
                await client.start(app.branching, {"text": "x", "number": "y"})  # pyright: ignore[reportArgumentType, reportCallIssue]  # wrong on purpose
            with pytest.raises(InvalidInput, match="not of type 'integer'"):
                await client.start("branching", {"text": "x", "number": "y"})
            with pytest.raises(ValueError, match="run id: expected"):
                await client.start(app.branching, Word("x"), id="a/b")

    asyncio.run(run())


def test_two_coordinators_start_every_tick_of_a_schedule_once(system: System) -> None:
    system.coordinator()

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "every-second")
            index = client.store.keys.partitions[0].ended(RunStatus.COMPLETED, "every-second")

            async def enough() -> bool:
                return int(await client.store.execute("ZCARD", index)) >= 4

            await until(enough, "four ticks were run")
            runs = await client.list(flow="every-second", limit=100)
            assert all(one.id.startswith("every-second:cron0:2") for one in runs)
            ended = [one for one in runs if one.status is RunStatus.COMPLETED]
            assert len(system.lines("ticked", "tick")) >= len(ended) >= 4
            for one in ended:
                history = await (await client.get(one.id)).history()
                assert [record.attempts for record in history] == [1]

    asyncio.run(run())


def test_a_node_of_another_queue_runs_on_the_workers_of_that_queue(system: System) -> None:
    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "elsewhere", processes=2)
            one = await client.start(app.elsewhere, Word("q"))
            await until(lambda: bool(system.lines("first", "q")), "the first node ran")
            other = system.worker(queue="other")
            assert await one.result() == "q!"
            assert int(system.lines("after", "q")[0][-2]) in children_of(other.pid)

    asyncio.run(run())


def test_a_worker_can_be_run_from_a_script(
    make_system: Callable[..., System], one_binary: ServerBinary, tmp_path: Path
) -> None:
    system = make_system(one_binary)
    system.coordinator()
    script = tmp_path / "script.py"
    script.write_text(
        "from resolute import FlowBuilder, Worker, manual, node\n"
        "@node('only')\n"
        "async def only() -> int:\n"
        "    return 42\n"
        "flow = FlowBuilder('script').triggered_by(manual('x')).then(only).build()\n"
        "if __name__ == '__main__':\n"
        "    Worker(queue='s', processes=1).with_flow(flow).run()\n"
    )
    worker = subprocess.Popen(
        [sys.executable, script], env={**os.environ, "RESOLUTE_REDIS": system.server.url}
    )
    system.processes.append(worker)

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "script")
            assert await (await client.start("script")).result() == 42

    asyncio.run(run())


def test_the_blocking_client_does_the_same(system: System) -> None:
    asyncio.run(wait_for_offer(system, "branching"))
    with sync.Client(system.server.url) as client:
        run = client.start(app.branching, Word("sync", 7), id="sync-1")
        assert run.result(timeout=30) == "rush"
        assert client.get("sync-1").status() is RunStatus.COMPLETED
        assert [one.id for one in client.list(flow="branching")] == ["sync-1"]
        assert run.history()[0].name == "first"
        with pytest.raises(UnknownRun):
            client.get("sync-2")


async def wait_for_offer(system: System, name: str) -> None:
    async with system.client() as client:
        await system.offered(client, name)


BAD = {
    "bad-exit": "SystemExit: 3",
    "bad-interrupt": "KeyboardInterrupt",
    "bad-error": "the error's own str",
    "bad-stop": "StopIteration",
    "bad-encode": r"NotEncodable: cannot encode output\['inner'\]\[1\]",
    "bad-huge": "PayloadTooLarge: payload of 100,000,00. bytes is over the limit of 20,000,000",
    "bad-output": "output of node 'wrong-type': Expected `int` >= 0",
    "bad-input-value": "Expected `int` >= 10",
    "bad-input-function": "LookupError: the input cannot be made",
    "bad-predicate": "when.1: LookupError: the predicate cannot say",
}


def test_bad_nodes_fail_with_a_clear_error_and_the_worker_lives(system: System) -> None:
    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "bad-exit", processes=2)
            before = await client.store.execute("HKEYS", client.store.keys.meta.processes)
            for name, message in BAD.items():
                bad_run = await client.start(name, {"text": name})
                with pytest.raises(FlowFailed, match=message):
                    await bad_run.result()
            after = await client.store.execute("HKEYS", client.store.keys.meta.processes)
            assert sorted(before) == sorted(after)

    asyncio.run(run())


def test_a_cancelled_run_stops_its_node_and_compensates_what_completed(system: System) -> None:
    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "saga")
            one = await client.start(app.saga, Word("c"))
            await until(lambda: bool(system.lines("held", "c")), "the node runs")
            assert await one.cancel("no longer wanted")
            assert await one.cancel("twice is once")
            with pytest.raises(FlowCancelled, match="no longer wanted"):
                await one.result()
            assert await one.status() is RunStatus.CANCELLED
            assert len(system.lines("undo-first", "c")) == 1
            assert len(system.lines("stopped", "c")) == 1
            assert not system.lines("after", "c")
            held = (await one.history())[1]
            assert (held.status, held.attempts) == (NodeStatus.FAILED, 1)
            assert held.error is not None
            assert held.error.type == "Cancelled"

    asyncio.run(run())


def test_a_terminated_run_ends_at_once_and_compensates_nothing(system: System) -> None:
    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "saga")
            one = await client.start(app.saga, Word("t"))
            await until(lambda: bool(system.lines("held", "t")), "the node runs")
            assert await one.terminate()
            with pytest.raises(FlowFailed, match="terminated"):
                await one.result()
            system.release("t")
            assert not system.lines("undo-first", "t")

    asyncio.run(run())


def test_a_retried_run_goes_on_where_it_failed_or_was_compensated(system: System) -> None:
    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "recoverable")
            one = await client.start(app.recoverable, Word("r"))
            with pytest.raises(FlowFailed, match="not yet"):
                await one.result()
            assert len(system.lines("undo-first", "r")) == 1
            system.release("r.mended")
            again = await client.retry(one.id)
            assert again.id == f"{one.id}/~1"
            assert await again.result() == "mended"
            # `first` was compensated, so it is run again, and all that came after it.
            assert len(system.lines("first", "r")) == 2
            info = await again.info()
            assert info.retry_of == one.id
            assert await one.status() is RunStatus.FAILED
            assert await client.retry(one.id, number=1) == again

    asyncio.run(run())


def test_a_history_tells_every_node_with_attempts_and_errors(system: System) -> None:
    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, "recoverable")
            one = await client.start(app.recoverable, Word("h"))
            with pytest.raises(FlowFailed):
                await one.result()
            history = await one.history()
            assert [(n.name, n.status) for n in history] == [
                ("first", NodeStatus.COMPLETED),
                ("second", NodeStatus.COMPLETED),
                ("fails-once", NodeStatus.FAILED),
                ("undo-first", NodeStatus.COMPLETED),
            ]
            failed = history[2]
            assert failed.error is not None
            assert "TerminalError" in failed.error.traceback
            assert history[3].compensates == "first"

    asyncio.run(run())
