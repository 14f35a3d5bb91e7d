"""`resolute flows`."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from resolute.store import registry
from resolute.testing.server import EmbeddedServer
from tests.cli.helpers import Cli
from tests.support.flows import builder, chain, step
from tests.support.stage import Stage, forget


def row_of(cli: Cli, flow: str) -> dict[str, Any]:
    return next(row for row in cli.json("flows") if row["flow"] == flow)


def test_a_flow_has_its_queue_plan_and_processes(cli: Cli):
    row = row_of(cli, "checkout")
    assert row["queues"] == {"default": 2}
    assert row["plans"] == {row["plan"]: 2}
    assert row["plan"] == cli.json("graph", "checkout")["hash"]


def test_open_runs_are_counted_by_flow(cli: Cli, gate: Path):
    before = {flow: row_of(cli, flow)["open_runs"] for flow in ("held", "patient")}
    cli.start("held", "--input", json.dumps({"path": str(gate)}))
    assert row_of(cli, "held")["open_runs"] == before["held"] + 1
    assert row_of(cli, "patient")["open_runs"] == before["patient"]


def test_each_version_has_its_open_runs_and_says_whether_a_worker_serves_it(
    stage: Stage, server: EmbeddedServer, runner: asyncio.Runner
):
    cli = Cli(server.url, stage.store.keys.meta.namespace)
    old, new = chain("a", flow="f"), chain("a", "b", flow="f")

    async def set_up() -> None:
        await stage.begin_run(old, "pinned")
        await forget(stage.store, "stage:0:offers")
        await stage.offer(new, process="2")
        await registry.beat(stage.store, ["2"], {})
        await stage.start(new, "fresh")
        await stage.coordinate()
        await stage.start(new, "not-begun")

    runner.run(set_up())
    row = row_of(cli, "f")
    assert row["open_runs"] == 3
    assert row["versions"] == [
        {"plan": new.plan_hash, "open_runs": 2, "processes": 1},
        {"plan": old.plan_hash, "open_runs": 1, "processes": 0},
    ]
    lines = [line.split() for line in cli("flows").stdout.splitlines()[1:]]
    assert lines == [
        ["f", "q", new.plan_hash[:8], "1", "2"],
        [old.plan_hash[:8], "waiting", "for", "worker", "1"],
    ]


def test_a_schedule_has_its_next_tick_in_its_own_time_zone(cli: Cli):
    (schedule,) = row_of(cli, "saga")["schedules"]
    tick = datetime.fromtimestamp(schedule["next"], ZoneInfo(schedule["timezone"]))
    assert schedule["timezone"] == "Europe/Oslo"
    assert (tick.hour, tick.minute) == (4, 0)
    assert "0 4 * * *, next" in " ".join(cli("flows").stdout.split())


def test_the_table_names_every_flow(cli: Cli):
    rows = cli("flows", columns=80).stdout.splitlines()
    assert rows[0].split() == ["flow", "queue", "plan", "processes", "open", "schedule"]
    names = {row.split()[0] for row in rows[1:]}
    assert {"checkout", "held", "patient", "remote", "retrying", "saga", "throttled"} <= names


def test_a_retention_is_shown_where_a_flow_has_its_own(
    stage: Stage, server: EmbeddedServer, runner: asyncio.Runner
):
    cli = Cli(server.url, stage.store.keys.meta.namespace)
    runner.run(stage.offer(chain("a", flow="plain")))
    assert "kept" not in cli("flows").stdout.splitlines()[0].split()
    made = builder("own").then(step("a"))
    runner.run(stage.offer(made.with_retention("36h", keep_last=1000).build(), process="2"))
    text = cli("flows").stdout
    assert "kept" in text.splitlines()[0].split()
    assert "1d12h, the last 1,000" in text
    assert row_of(cli, "own")["retention"] == {"after_ms": 129_600_000, "keep_last": 1000}
    assert row_of(cli, "plain")["retention"] is None


def test_of_two_plans_the_one_that_was_offered_last_says_the_retention(
    stage: Stage, server: EmbeddedServer, runner: asyncio.Runner
):
    cli = Cli(server.url, stage.store.keys.meta.namespace)
    made = builder("own").then(step("a"))
    for process, after in (("2-first", "7d"), ("1-last", "2d")):
        runner.run(stage.offer(made.with_retention(after).build(), process=process))
    assert row_of(cli, "own")["retention"] == {"after_ms": 172_800_000, "keep_last": None}
