"""Runs that wait: gates, sleeps, delayed starts and deadlines, with real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from examples.approve_expense.flows import Expense, Paid, flow
from resolute import (
    Client,
    FlowFailed,
    GateResult,
    InvalidSignal,
    RunEnded,
    UnknownRun,
    UnknownSignal,
)
from resolute.cli.show.snapshot import take_snapshot
from resolute.cli.show.waiting import WaitKind
from resolute.status import NodeStatus, RunStatus
from resolute.testing.server import ServerBinary
from tests.support.system import System, until

APP = "examples.approve_expense.flows"


@pytest.fixture
def expenses(system: System) -> System:
    system.worker(app=APP, EXPENSE_COOLING="10ms")
    return system


async def wait_kinds(client: Client, run_id: str) -> set[WaitKind]:
    return {wait.kind for wait in (await take_snapshot(client, run_id)).waits}


async def is_at_gate(client: Client, run_id: str) -> bool:
    return await wait_kinds(client, run_id) == {WaitKind.SIGNAL}


@pytest.mark.parametrize("partitions", [1, 3])
def test_a_gate_is_passed_before_or_after_it_is_reached_and_everybody_may_die_meanwhile(
    make_system: Callable[..., System], binary: ServerBinary, partitions: int
) -> None:
    system = make_system(binary, partitions=partitions)
    coordinator = system.coordinator()
    worker = system.worker(app=APP, EXPENSE_COOLING="10ms")

    async def run() -> None:
        async with system.client() as client:
            await system.offered(client, flow.name)
            small = await client.start(flow, Expense("ann", 20))
            assert await small.result() == Paid("ann", 20, "nobody")
            late = await client.start(flow, Expense("ann", 120), id="late")
            early = await client.start(flow, Expense("bob", 120), delay="1h", id="early")
            await early.signal("decision", GateResult(True, decided_by="cid"))
            await until(lambda: is_at_gate(client, "late"), "it waits for a decision")
            assert await wait_kinds(client, "early") == {WaitKind.TIME}
            for process in (coordinator, worker):
                os.kill(process.pid, signal.SIGKILL)
            system.coordinator()
            system.worker(app=APP, EXPENSE_COOLING="10ms")
            await late.signal("decision", GateResult(True, decided_by="dan"), sender="one")
            await late.signal("decision", GateResult(True, decided_by="eve"), sender="one")
            assert await late.result() == Paid("ann", 120, "dan")
            names = [(node.name, node.status) for node in await late.history()]
            assert ("decision", NodeStatus.COMPLETED) in names
            assert ("cooling-off", NodeStatus.COMPLETED) in names
            await early.cancel()
            await until(lambda: has_ended(client, "early"), "it has ended")

    asyncio.run(run())


async def has_ended(client: Client, run_id: str) -> bool:
    return (await (await client.get(run_id)).status()).is_terminal


def test_what_is_rejected_is_compensated(expenses: System) -> None:
    async def run() -> None:
        async with expenses.client() as client:
            await expenses.offered(client, flow.name)
            one = await client.start(flow, Expense("ann", 120))
            await one.signal("decision", GateResult(approved=False, reason="too dear"))
            with pytest.raises(FlowFailed, match="rejected: too dear"):
                await one.result()
            undone = [node for node in await one.history() if node.compensates]
            assert [node.name for node in undone] == ["release-budget"]

    asyncio.run(run())


def test_a_signal_that_cannot_be_one_is_refused_with_the_reason(expenses: System) -> None:
    async def run() -> None:
        async with expenses.client() as client:
            await expenses.offered(client, flow.name)
            one = await client.start(flow, Expense("ann", 120), id="e-1")
            with pytest.raises(
                InvalidSignal, match=r"not of type 'boolean' - at `\$\['approved'\]"
            ):
                await one.signal("decision", {"approved": "perhaps"})
            with pytest.raises(UnknownSignal, match="it takes decision"):
                await one.signal("desicion")
            with pytest.raises(UnknownRun):
                await client.signal("nobody", "decision")
            await one.terminate()
            await until(lambda: has_ended(client, "e-1"), "it has ended")
            with pytest.raises(RunEnded):
                await one.signal("decision", GateResult(True))

    asyncio.run(run())


def test_a_run_begins_when_it_is_to(expenses: System) -> None:
    async def run() -> None:
        async with expenses.client() as client:
            await expenses.offered(client, flow.name)
            moment = datetime.now(UTC) + timedelta(seconds=1)
            runs = [
                await client.start(flow, Expense("ann", 20), at=moment),
                await client.start(flow.name, {"who": "ann", "amount": 20}, delay="1s"),
            ]
            for one in runs:
                await one.result()
                info = await one.info()
                first = (await one.history())[0]
                assert first.dispatched is not None
                assert first.dispatched >= min(moment.timestamp(), info.started + 1) - 0.01
            with pytest.raises(ValueError, match="a delay or a time"):
                await client.start(flow, Expense("ann", 20), delay="1s", at=moment)
            with pytest.raises(ValueError, match="time zone"):
                await client.start(flow, Expense("ann", 20), at=datetime(2030, 1, 1))

    asyncio.run(run())


def test_decisions_come_from_the_command_line(expenses: System) -> None:
    def command(*words: str) -> subprocess.CompletedProcess[str]:
        program = [
            Path(sys.executable).with_name("resolute"),
            *words,
            "--redis",
            expenses.server.url,
        ]
        return subprocess.run(program, capture_output=True, text=True, check=False)

    async def ready() -> None:
        async with expenses.client() as client:
            await expenses.offered(client, flow.name)

    asyncio.run(ready())
    for run_id in ("c-1", "c-2"):
        value = json.dumps({"who": "ann", "amount": 120})
        assert command("start", flow.name, "--id", run_id, "--input", value).returncode == 0
    wrong = command("signal", "c-1", "nothing", "--approve")
    assert (wrong.returncode, "it takes decision" in wrong.stderr) == (3, True)
    wrong = command("signal", "c-1", "decision", "--by", "bob")
    assert (wrong.returncode, "belong to --approve" in wrong.stderr) == (2, True)
    sent = command("signal", "c-1", "decision", "--approve", "--by", "bob", "--sender", "x")
    assert (sent.returncode, sent.stdout) == (0, "signal 'decision' was sent to run 'c-1'\n")
    sent = command("signal", "c-2", "decision", "--payload", '{"approved": false}', "--json")
    assert json.loads(sent.stdout) == {"id": "c-2", "signal": "decision"}

    async def ends() -> list[RunStatus]:
        async with expenses.client() as client:
            found: list[RunStatus] = []
            for run_id in ("c-1", "c-2"):
                await until(lambda one=run_id: has_ended(client, one), "it has ended")
                found.append(await (await client.get(run_id)).status())
            return found

    assert asyncio.run(ends()) == [RunStatus.COMPLETED, RunStatus.FAILED]
