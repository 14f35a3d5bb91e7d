"""`resolute doctor`: when it speaks of each thing, and when it does not."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from resolute.cli.doctor.command import _summary
from resolute.cli.doctor.findings import Finding, Severity
from resolute.cli.doctor.partitions import Backlog, check_backlog
from resolute.cli.doctor.processes import ProcessRow, check_processes, find_silent
from resolute.cli.doctor.queues import QueueRow, check_queues, queue_names, read_queues
from resolute.cli.doctor.server import check_server
from resolute.cli.doctor.stuck import (
    MAX_SAID,
    StuckRun,
    check_damaged,
    check_stuck,
    find_stuck,
    oldest_open,
)
from resolute.cli.flows import read_flows
from resolute.cli.live import read_situation
from resolute.client import Client
from resolute.errors import DamagedRun
from resolute.priority import lane_of
from resolute.store import registry
from resolute.store.registry import ProcessInfo
from resolute.store.script import GROUP_WORKERS
from resolute.store.store import Store
from tests.cli.helpers import Examine, findings
from tests.cli.test_doctor import FLOW, GOOD, offer
from tests.support.flows import builder, chain, chain_of, step
from tests.support.stage import Stage, forget

pytestmark = pytest.mark.leaves_keys("made by hand, and erased with the namespace")


@pytest.mark.parametrize(
    ("seconds", "severity"),
    [(0.001, Severity.OK), (0.05, Severity.WARNING), (0.2, Severity.PROBLEM)],
)
def test_how_far_away_a_server_is(seconds: float, severity: Severity):
    (found,) = [f for f in check_server(GOOD, "redis://x", seconds) if f.check == "latency"]
    assert found.severity is severity


@pytest.mark.parametrize(("policy", "said"), [("allkeys-lru", 0), ("noeviction", 1), (None, 1)])
def test_a_policy_that_evicts_is_not_called_fine(policy: str | None, said: int):
    info = changed(eviction=policy)
    found = [f for f in check_server(info, "redis://x", 0.001) if f.check == "eviction"]
    assert [f.severity for f in found] == [Severity.OK] * said


def changed(**changes: Any) -> Any:
    return type(GOOD)(**{**vars(GOOD), **changes})


def test_settings_that_cannot_be_read_are_no_problem():
    info = changed(appendfsync=None)
    (found,) = [f for f in check_server(info, "redis://x", 0.001) if f.check == "persistence"]
    assert found.severity is Severity.OK


# Queues.

ROW = QueueRow("default", "", 0, 0, 0.0, 0.0, 1)
PROCESS = ProcessRow("p", "worker", "host", 1, "default", 1.0, 10, 1, True)


def judged(**changes: Any) -> list[Finding]:
    row = msgspec.structs.replace(ROW, **changes)
    other = msgspec.structs.replace(PROCESS, queue="gpu")
    return list(
        check_queues([row], [PROCESS, other, msgspec.structs.replace(PROCESS, beats=False)])
    )


def test_a_queue_whose_workers_are_too_few_is_worth_a_warning():
    (found,) = judged(ready=7, ready_age=31.0)
    assert found.severity is Severity.WARNING
    assert "7 nodes ready" in found.text and "its 10 slots are not enough" in found.text


def test_an_empty_queue_that_nobody_reads_is_worth_a_warning():
    (found,) = judged(readers=0)
    assert found.severity is Severity.WARNING
    assert "empty, and no worker reads it" in found.text
    assert judged(readers=0, plan="p") == []


def test_a_queue_that_is_worked_off_says_how_long_its_oldest_node_runs():
    (found,) = judged(taken=3, taken_age=12.0)
    assert (found.severity, found.text) == (
        Severity.OK, "no nodes ready; 3 running, the oldest for 12.0 s"
    )  # fmt: skip


async def test_the_age_of_what_is_taken_is_that_of_the_oldest(stage: Stage, store: Store):
    await stage.begin_run(chain("a"))
    await stage.claim_one("w")
    situation = await read_situation(store)
    later = msgspec.structs.replace(situation, now=situation.now + 100)
    (row,) = await read_queues(store, [("q", "")], later, set())
    assert (row.ready, row.taken) == (0, 1)
    assert 99 < row.taken_age < 110


async def test_a_worker_reads_the_streams_of_its_own_plans_alone(store: Store):
    await offer(store)
    situation = await read_situation(store)
    stream = store.keys.partitions[0].queue("default", "another")
    await store.execute("XADD", stream, "*", "e", b"x")
    rows = await read_queues(
        store, [("default", FLOW.plan_hash), ("default", "another"), ("default", "")],
        situation, set(),
    )  # fmt: skip
    assert {row.plan: row.readers for row in rows} == {"another": 0, "": 1}


# Processes.


async def test_a_process_that_leaves_meanwhile_is_not_silent(store: Store):
    await offer(store)
    situation = await read_situation(store)
    look = asyncio.create_task(find_silent(store, situation.workers))
    await asyncio.sleep(0)
    await forget(store, situation.workers[0].name)
    assert await look == set()


async def test_a_process_whose_lease_was_ended_is_not_looked_at(store: Store):
    await offer(store)
    await registry.end_lease(store, "host:1:aaaa")
    assert (await read_situation(store)).workers == []


def test_a_coordinator_without_a_beat_is_not_alive(
    store: Store, examine: Examine, runner: asyncio.Runner
):
    silent = ProcessInfo("host:2:bbbb", "coordinator", "host", 2, 0, 0.3)
    runner.run(registry.register(store, silent, {}))
    (found,) = findings(examine(), "coordinators")
    assert found["severity"] == "problem"


async def test_new_runs_get_the_plan_of_the_worker_that_was_started_last(store: Store):
    old, new = chain("a", flow="f"), chain("a", "b", flow="f")
    for number, (flow, started) in enumerate(((new, 2000), (old, 1000))):
        info = ProcessInfo(
            f"host:{number}:w", "worker", "host", number, started, 60.0, queue="q",
            flows={"f": flow.plan_hash},
        )  # fmt: skip
        await registry.register(store, info, {flow.plan_hash: flow.plan})
    ((row,), _) = await read_flows(Client(store))
    assert row.plan == new.plan_hash
    assert row.plans == {old.plan_hash: 1, new.plan_hash: 1}


# Runs.


async def test_a_run_whose_node_runs_is_not_stuck_however_long_it_takes(stage: Stage, store: Store):
    await stage.begin_run(chain("a"))
    await stage.offer(chain("a"), process="w")
    await stage.claim_one("w")
    situation = await read_situation(store)
    later = msgspec.structs.replace(situation, now=situation.now + 1000)
    opened, _ = await oldest_open(store)
    assert [header.id for header in opened] == ["run"]
    assert await find_stuck(Client(store), opened, [], later, 1.0) == []


async def test_what_waits_for_a_decision_or_a_time_is_not_stuck(stage: Stage, store: Store):
    for name, made in (
        ("gate", builder("gate").then_gate("g")),
        ("day", builder("day").then_gate("g", timeout="24h")),
        ("sleep", builder("sleep").then_sleep("24h")),
    ):
        await stage.begin_run(made.build(), name)
    await stage.start(chain("a"), "later", delay=3_600_000)
    coordinator = ProcessInfo("c", "coordinator", "host", 1, 0, 60.0)
    await registry.register(store, coordinator, {})
    situation = await read_situation(store)
    later = msgspec.structs.replace(situation, now=situation.now + 1000)
    opened, _ = await oldest_open(store)
    assert {header.id for header in opened} == {"gate", "day", "sleep", "later"}
    assert await find_stuck(Client(store), opened, [], later, 1.0) == []


async def test_only_a_run_that_has_not_moved_for_three_leases_is_stuck(stage: Stage, store: Store):
    await stage.begin_run(chain("a"))
    situation = await read_situation(store)
    opened, _ = await oldest_open(store)

    async def stuck(seconds: float) -> list[str]:
        later = msgspec.structs.replace(situation, now=opened[0].moved + seconds)
        return [run.id for run in await find_stuck(Client(store), opened, [], later, 1.0)]

    assert await stuck(2.9) == []
    assert await stuck(3.1) == ["run"]


@pytest.mark.parametrize("priority", ["normal", "low"])
async def test_a_run_whose_node_has_its_turn_in_a_busy_queue_is_not_stuck(
    stage: Stage, store: Store, priority: Any
):
    flow = chain_of(step("a", priority=priority))
    coordinator = ProcessInfo("c", "coordinator", "host", 1, 0, 60.0)
    await registry.register(store, coordinator, {})
    await stage.begin_run(flow)
    situation = await read_situation(store)
    later = msgspec.structs.replace(situation, now=situation.now + 1000)
    opened, _ = await oldest_open(store)

    async def stuck() -> list[str]:
        rows = await read_queues(store, [("q", "")], later, set())
        found = await find_stuck(Client(store), opened, rows, later, 1.0)
        return [run.id for run in found]

    assert await stuck() == []
    (held,) = await stage.take("w", lane_of("q", priority))
    await store.execute("XACK", held.stream, GROUP_WORKERS, held.id)  # its entry is lost
    await store.execute("XDEL", held.stream, held.id)
    assert await stuck() == ["run"]


def test_of_many_stuck_runs_the_first_are_named_and_the_others_counted():
    stuck = [StuckRun(f"r{number}", "f", 60.0, "") for number in range(MAX_SAID + 2)]
    found = list(check_stuck(stuck, 2000))
    assert [f.severity for f in found] == [Severity.PROBLEM] * (MAX_SAID + 1)
    assert found[-1].text.startswith("2 more of 2,000 open runs")
    assert "none stuck" in next(check_stuck([], 3)).text
    assert len(list(check_stuck(stuck[:MAX_SAID], 9))) == MAX_SAID
    assert len(list(check_damaged([DamagedRun("r", "x")] * 9))) == MAX_SAID


def test_a_deployment_with_a_problem_is_not_called_healthy(examine: Examine):
    assert examine()["healthy"] is False


@pytest.mark.parametrize(
    ("severities", "said"),
    [
        ([Severity.OK], "all is well"),
        ([Severity.WARNING, Severity.OK], "1 warning"),
        ([Severity.UNSUITABLE, Severity.PROBLEM, Severity.WARNING], "2 problems, 1 warning"),
    ],
)
def test_the_summary_counts_what_is_wrong(severities: list[Severity], said: str):
    assert _summary([Finding("x", severity, "") for severity in severities]).plain == said


def test_a_young_run_is_not_stuck_where_nobody_is_registered(
    stage: Stage, store: Store, examine: Examine, runner: asyncio.Runner
):
    async def begin() -> None:
        await stage.begin_run(chain("a"))
        for name in await registry.processes(store):
            await forget(store, name)

    runner.run(begin())
    assert examine()["stuck"] == []


def test_a_namespace_that_never_had_a_flow_is_told_so(examine: Examine):
    assert "no flow was ever offered" in findings(examine(), "workers")[0]["text"]


async def test_the_streams_of_an_old_plan_are_looked_at_on_every_queue_that_is_read(
    stage: Stage, store: Store
):
    old = chain("a")
    await stage.offer(old, process="gone")
    await forget(store, "gone")
    await offer(store, queue="default")
    situation = await read_situation(store)
    assert ("default", old.plan_hash) in await queue_names(
        Client(store), situation, [old.plan_hash]
    )


@pytest.mark.parametrize(
    ("events", "age", "severity"),
    [(0, 0.0, Severity.OK), (3, 4.9, Severity.OK), (3, 5.1, Severity.PROBLEM)],
)
def test_events_are_a_problem_once_they_are_old(events: int, age: float, severity: Severity):
    found = list(check_backlog(Backlog(events, age, 0, 0.0, 0, "")))
    assert [f.severity for f in found if f.check == "events"] == [severity]


def test_an_ill_provider_is_a_problem_and_says_where_and_why():
    def row(ill: dict[str, str], beats: bool = True) -> ProcessRow:
        providers = {"cards": "1", "mail": "1"}
        return ProcessRow("w", "worker", "h", 1, "q", 1.0, 10, 0, beats, providers, ill)

    rows = [row({"cards": "no money"}), row({}), row({"cards": "no money"}), row({"cards": "?"})]
    dead = row({"mail": "lost"}, beats=False)
    found = [f for f in check_processes([*rows, dead], True) if f.check.startswith("health of")]
    assert [(f.check, f.severity) for f in found] == [("health of cards", Severity.PROBLEM)]
    assert found[0].text == "ill in 3 of 4 processes: no money"
    assert "retried all the same" in found[0].advice


def test_two_versions_of_a_provider_are_worth_a_look():
    def row(version: str, *, beats: bool = True) -> ProcessRow:
        providers = {"cards": version}
        return ProcessRow("w", "worker", "h", 1, "payments", 1.0, 10, 0, beats, providers)

    one = [row("1.2"), row("1.2"), row("1.1", beats=False)]
    (found,) = (f for f in check_processes(one, True) if f.check == "provider cards")
    assert (found.severity, found.text) == (Severity.OK, "version 1.2 on payments")
    (found,) = (f for f in check_processes([*one, row("1.3")], True) if f.check == "provider cards")
    assert found.severity is Severity.WARNING and "versions 1.2, 1.3 live side" in found.text
