"""`resolute flows`."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from tests.cli.helpers import Cli


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
