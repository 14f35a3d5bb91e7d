"""`resolute show`: the nodes of a run, and what it waits for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from resolute.cli.exits import Exit
from tests.cli.helpers import Cli, until


def nodes_of(cli: Cli, run_id: str) -> dict[str, dict[str, Any]]:
    return {node["name"]: node for node in cli.json("show", run_id)["nodes"]}


def waits_of(cli: Cli, run_id: str) -> list[dict[str, Any]]:
    return cli.json("show", run_id)["waits"]


def test_every_node_has_its_status_attempts_and_times(cli: Cli):
    nodes = nodes_of(cli, cli.ended("checkout", "--input", '{"price": 5000}'))
    statuses = {name: node["status"] for name, node in nodes.items()}
    assert statuses == {
        "price": "completed",
        "tax": "completed",
        "shipping": "completed",
        "free-gift": "failed",
        "when.1": "completed",
        "discount": "completed",
        "when.2": "completed",
    }
    assert all(node["attempts"] == 1 for node in nodes.values())
    assert all(n["dispatched"] <= n["begun"] <= n["ended"] for n in nodes.values())
    assert nodes["free-gift"]["error"]["message"] == "no gifts left"


def test_the_table_groups_a_parallel_step_and_shows_the_result(cli: Cli):
    run_id = cli.ended("checkout", "--input", '{"price": 5000}')
    lines = cli("show", run_id).stdout.splitlines()
    assert lines[0].split() == ["run", run_id]
    assert any(line.split() == ["result", "6155"] for line in lines)
    at = next(i for i, line in enumerate(lines) if line.rstrip() == "costs")
    names = [line.split()[0] for line in lines[at + 1 : at + 4]]
    assert names == ["tax", "shipping", "free-gift"]
    assert all(line.startswith("  ") for line in lines[at + 1 : at + 4])


def test_what_a_run_has_spent_is_shown_by_unit(cli: Cli):
    run_id = cli.ended("checkout", "--input", '{"price": 5000}')
    assert cli.json("show", run_id)["costs"] == {"eur": "0.1", "tokens": "1250"}
    lines = [line.split() for line in cli("show", run_id).stdout.splitlines()]
    assert ["cost", "0.1", "eur,", "1,250", "tokens"] in lines
    spent_nothing = cli.ended("saga", code=Exit.FAILED)
    assert not any(x.startswith("cost ") for x in cli("show", spent_nothing).stdout.splitlines())


@pytest.mark.parametrize("columns", [80, 120])
def test_every_line_fits_the_terminal_and_bars_are_drawn(cli: Cli, columns: int):
    run_id = cli.ended("saga", code=Exit.FAILED)
    outcome = cli("show", run_id, columns=columns)
    assert max(map(len, outcome.stdout.splitlines())) <= columns
    row = next(line for line in outcome.stdout.splitlines() if line.startswith("ship "))
    assert set(row) & set("█▌▐")


def test_a_compensation_says_what_it_undoes(cli: Cli):
    run_id = cli.ended("saga", code=Exit.FAILED)
    assert nodes_of(cli, run_id)["unreserve"]["compensates"] == "reserve"
    assert "↩ unreserve undoes reserve" in cli("show", run_id).stdout


def test_the_error_of_a_failed_run_has_its_traceback(cli: Cli):
    outcome = cli("show", cli.ended("saga", code=Exit.FAILED))
    assert "error    ship: OutOfStock: only 5 left" in outcome.stdout
    assert 'raise OutOfStock(f"only {total.amount} left")' in outcome.stdout


def test_attempts_are_counted(cli: Cli, tmp_path: Path):
    given = json.dumps({"path": str(tmp_path / "flag")})
    run_id = cli.ended("retrying", "--input", given)
    flaky = nodes_of(cli, run_id)["flaky"]
    assert (flaky["status"], flaky["attempts"]) == ("completed", 2)


def test_a_running_node_is_named_with_its_process(cli: Cli, gate: Path):
    run_id = cli.start("held", "--input", json.dumps({"path": str(gate)}))
    (wait,) = until(
        lambda: [w for w in waits_of(cli, run_id) if w["kind"] == "node"], "the node runs"
    )
    assert wait["process"] in {p["name"] for p in cli.json("doctor")["processes"]}
    assert wait["text"].startswith(f"hold runs on {wait['process']} for ")


def test_a_retry_is_named_with_its_time_and_cause(cli: Cli):
    run_id = cli.start("patient")

    def look() -> list[dict[str, Any]]:
        # Record and error are read one after the other, and may be written in between.
        return [w for w in waits_of(cli, run_id) if w["kind"] == "retry" and "after" in w["text"]]

    (wait,) = until(look, "the first attempt has failed")
    assert wait["text"].startswith("stubborn: attempt 2 of 2 due in ")
    assert wait["text"].endswith("after ConnectionError: not today")
    assert 3000 < wait["due"] - cli.json("show", run_id)["now"] < 4500
    cli("terminate", run_id)


def test_a_rate_limit_is_no_retry(cli: Cli):
    first, second = cli.start("throttled"), cli.start("throttled")
    waiting = until(
        lambda: [w for r in (first, second) for w in waits_of(cli, r) if w["kind"] == "rate_limit"],
        "one of the two is throttled",
    )
    assert waiting[0]["text"].startswith("limited: rate limit, its turn is due in ")
    for run_id in (first, second):
        if cli.json("show", run_id)["run"]["ended"] is None:
            cli("terminate", run_id)


def test_a_queue_without_a_worker_is_named(cli: Cli):
    run_id = cli.start("remote")
    (wait,) = until(
        lambda: [w for w in waits_of(cli, run_id) if w["kind"] == "worker"], "it is dispatched"
    )
    assert wait["queue"] == "gpu"
    assert "waiting for worker" in " ".join(cli("show", run_id).stdout.split())
    cli("terminate", run_id)


def test_watching_ends_with_the_run_and_gives_a_line_of_json_a_change(cli: Cli, gate: Path):
    run_id = cli.start("held", "--input", json.dumps({"path": str(gate)}))
    gate.touch()
    outcome = cli("show", run_id, "--watch", "--json")
    snapshots = [msgspec.json.decode(line) for line in outcome.stdout.splitlines()]
    assert snapshots[-1]["run"]["status"] == "completed"
    assert snapshots[-1]["result"] == "released"
    assert all(snapshot["run"]["id"] == run_id for snapshot in snapshots)


def test_watching_without_a_terminal_shows_the_end(cli: Cli):
    outcome = cli("show", cli.start("checkout"), "--watch")
    assert outcome.stdout.count("✓ completed") > 1
    assert "● running" not in outcome.stdout


def test_an_unknown_run(cli: Cli):
    assert cli("show", "nobody", code=Exit.UNKNOWN).stderr.startswith("error: no run 'nobody'")


def test_what_is_no_decision_passes_no_gate_and_what_was_decided_is_shown(cli: Cli):
    run_id = cli.start("published")
    for payload in (
        (),
        ("--payload", "{}"),
        ("--payload", '{"approve": false}'),
        ("--payload", '{"aproved": false}'),
    ):
        refused = cli("signal", run_id, "approval", *payload, code=Exit.UNUSABLE)
        assert "approved (true or false)" in refused.stderr
        assert "use --approve or --reject" in refused.stderr
    both = '{"approved": true, "approve": false}'
    refused = cli("signal", run_id, "approval", "--payload", both, code=Exit.UNUSABLE)
    assert "('approve' was unexpected)" in refused.stderr
    assert waits_of(cli, run_id)[0]["kind"] == "signal"
    cli("signal", run_id, "approval", "--reject", "--by", "ann", "--reason", "too dear")
    until(lambda: cli.json("show", run_id)["run"]["ended"], "the run has ended")
    decision = cli.json("show", run_id)["decisions"]["approval"]
    assert (decision["approved"], decision["decided_by"]) == (False, "ann")
    lines = [line.split() for line in cli("show", run_id).stdout.splitlines()]
    assert ["decided", "approval:", "rejected", "by", "ann:", "too", "dear"] in lines
