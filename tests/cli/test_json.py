"""To be pasted into tests/cli/test_start.py and test_stop.py."""

from __future__ import annotations

from pathlib import Path

from resolute.cli.exits import Exit
from tests.cli.helpers import Cli


def test_as_json_all_is_on_stdout(cli: Cli):
    given = ("start", "checkout", "--input", '{"price": 100}', "--id", "json-1", "--json")
    assert cli(*given).data == {"id": "json-1", "flow": "checkout"}
    outcome = cli(*given, "--wait")
    assert outcome.data == {"id": "json-1", "status": "completed", "result": 130, "error": None}
    assert outcome.stderr == ""


def test_a_file_that_is_no_text_is_refused(cli: Cli, tmp_path: Path):
    path = tmp_path / "input.json"
    path.write_bytes(b"\xff")
    outcome = cli("start", "checkout", "--input", f"@{path}", code=Exit.UNUSABLE)
    assert outcome.stderr.startswith("error: ") and "--input: " in outcome.stderr


def test_a_retry_as_json_names_both_runs(cli: Cli):
    run_id = cli.ended("saga", code=Exit.FAILED)
    assert cli.json("retry", run_id) == {"id": f"{run_id}/~1", "retry_of": run_id}
