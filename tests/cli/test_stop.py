"""`resolute cancel`, `terminate`, `retry` and `rerun`."""

from __future__ import annotations

import json
from pathlib import Path

from resolute.cli.exits import Exit
from tests.cli.helpers import Cli, until


def status_of(cli: Cli, run_id: str) -> str:
    return cli.json("show", run_id)["run"]["status"]


def test_a_cancelled_run_keeps_the_reason(cli: Cli, gate: Path):
    run_id = cli.start("held", "--input", json.dumps({"path": str(gate)}))
    assert run_id in cli("cancel", run_id, "--reason", "sold out").stdout
    until(lambda: status_of(cli, run_id) == "cancelled", "it is cancelled")
    assert cli.json("show", run_id)["run"]["error"]["message"] == "sold out"


def test_a_terminated_run_ends_at_once(cli: Cli, gate: Path):
    run_id = cli.start("held", "--input", json.dumps({"path": str(gate)}))
    assert cli.json("terminate", run_id)["done"] is True
    until(lambda: status_of(cli, run_id) == "terminated", "it is terminated")


def test_a_run_that_has_ended_cannot_be_stopped(cli: Cli):
    run_id = cli.ended("checkout")
    for command in ("cancel", "terminate"):
        outcome = cli(command, run_id, code=Exit.FAILED)
        assert outcome.stderr.startswith(f"error: run '{run_id}' is completed")
        assert cli.json(command, run_id, code=Exit.FAILED)["done"] is False


def test_a_retry_is_a_new_run_and_remembers_the_old(cli: Cli):
    run_id = cli.ended("saga", code=Exit.FAILED)
    again = cli("retry", run_id).stdout.strip()
    assert again == f"{run_id}/~1"
    until(lambda: status_of(cli, again) == "failed", "the retry has failed as well")
    assert cli.json("show", again)["run"]["retry_of"] == run_id
    assert f"retry of  {run_id}" in cli("show", again).stdout


def test_a_rerun_is_another_run_from_the_start(cli: Cli):
    run_id = cli.ended("checkout", "--input", '{"price": 5000}')
    again = cli("rerun", run_id).stdout.strip()
    assert again != run_id
    until(lambda: status_of(cli, again) == "completed", "the other run has completed")
    assert cli.json("show", again)["result"] == cli.json("show", run_id)["result"]
    assert cli.json("rerun", run_id, "--id", "again") == {"id": "again", "rerun_of": run_id}
    wrong = cli("rerun", run_id, "--id", "a b", code=Exit.UNUSABLE)
    assert "run id: expected" in wrong.stderr


def test_what_completed_cannot_be_retried(cli: Cli):
    assert "completed" in cli("retry", cli.ended("checkout"), code=Exit.FAILED).stderr


def test_unknown_runs(cli: Cli):
    for command in ("cancel", "terminate", "retry", "rerun", "show"):
        cli(command, "nobody", code=Exit.UNKNOWN)
        cli(command, "\udcff", code=Exit.UNKNOWN)
