"""`resolute start`: ids, inputs, results, and the exit codes a script relies on."""

from __future__ import annotations

import json
from pathlib import Path

from resolute.cli.exits import Exit
from tests.cli.helpers import Cli


def test_it_prints_the_id_and_nothing_else(cli: Cli):
    outcome = cli("start", "checkout")
    run_id = outcome.stdout.strip()
    assert cli.json("show", run_id)["run"]["id"] == run_id
    assert outcome.stderr == ""


def test_it_is_started_with_a_priority(cli: Cli):
    run_id = cli("start", "checkout", "--priority", "high", "--wait").stderr.strip()
    (run,) = [one for one in cli.json("ls", "--limit", "5") if one["id"] == run_id]
    assert (run["queue"], run["priority"]) == ("default", "high")
    assert "priority high" in cli("show", run_id).stdout
    wrong = cli("start", "checkout", "--priority", "urgent", code=Exit.UNUSABLE)
    assert "'urgent' is not one of 'high', 'normal', 'low'" in wrong.stderr


def test_with_wait_stdout_is_the_result_and_the_id_is_on_stderr(cli: Cli):
    outcome = cli("start", "checkout", "--input", '{"price": 100}', "--id", "wait-1", "--wait")
    assert outcome.data == 100 + 25 + 5
    assert outcome.stderr == "wait-1\n"


def test_the_input_comes_from_a_file_or_from_stdin(cli: Cli, tmp_path: Path):
    path = tmp_path / "input.json"
    path.write_text('{"price": 200}')
    from_file = cli("start", "checkout", "--input", f"@{path}", "--wait")
    from_stdin = cli("start", "checkout", "--input", "-", "--wait", stdin='{"price": 200}')
    assert from_file.data == from_stdin.data == 255


def test_a_failed_run_gives_its_error_the_nodes_traceback_and_code_1(cli: Cli):
    outcome = cli("start", "saga", "--wait", code=Exit.FAILED)
    assert outcome.stdout == ""
    traceback, _, last = outcome.stderr.rpartition("error: ")
    assert 'raise OutOfStock(f"only {total.amount} left")' in traceback
    assert last.endswith("failed: ship: OutOfStock: only 5 left\n")


def test_a_failed_run_as_json_keeps_the_error_apart(cli: Cli):
    data = cli.json("start", "saga", "--wait", code=Exit.FAILED)
    assert (data["status"], data["result"]) == ("failed", None)
    assert (data["error"]["type"], data["error"]["node"]) == ("OutOfStock", "ship")


def test_a_wait_that_is_too_short_ends_with_124_and_the_run_goes_on(cli: Cli, gate: Path):
    given = ("start", "held", "--id", "slow", "--input", json.dumps({"path": str(gate)}))
    outcome = cli(*given, "--wait", "--timeout", "100ms", code=Exit.TIMEOUT)
    assert "it goes on" in outcome.stderr
    gate.touch()
    assert cli(*given, "--wait").data == "released"


def test_the_same_id_with_another_input_is_a_conflict(cli: Cli):
    cli("start", "checkout", "--id", "twice", "--input", '{"price": 1}')
    assert cli.start("checkout", "--id", "twice", "--input", '{"price": 1}') == "twice"
    outcome = cli(
        "start", "checkout", "--id", "twice", "--input", '{"price": 2}', code=Exit.CONFLICT
    )
    assert outcome.stderr.startswith("error: run 'twice' exists")


def test_a_flow_that_nobody_offers_is_unknown_and_the_message_names_those_that_are(cli: Cli):
    outcome = cli("start", "nowhere", code=Exit.UNKNOWN)
    assert "'nowhere'" in outcome.stderr and "checkout" in outcome.stderr


def test_an_input_that_does_not_fit_is_refused_before_anything_starts(cli: Cli):
    def ids() -> set[str]:
        return {run["id"] for run in cli.json("ls", "--flow", "checkout", "--limit", "1000")}

    before = ids()
    outcome = cli("start", "checkout", "--input", '{"price": "ten"}', code=Exit.UNUSABLE)
    assert "$['price']" in outcome.stderr
    assert ids() == before


def test_an_input_that_is_no_json_is_named(cli: Cli):
    outcome = cli("start", "checkout", "--input", "{price: 1}", code=Exit.UNUSABLE)
    assert outcome.stderr.startswith("error: ") and "expected JSON" in outcome.stderr


def test_a_file_that_is_not_there_is_named(cli: Cli, tmp_path: Path):
    missing = tmp_path / "missing.json"
    outcome = cli("start", "checkout", "--input", f"@{missing}", code=Exit.UNUSABLE)
    assert "missing.json" in outcome.stderr


def test_an_id_that_cannot_be_one_is_refused(cli: Cli):
    assert "run id" in cli("start", "checkout", "--id", "a/b", code=Exit.UNUSABLE).stderr


def test_a_durability_that_the_server_cannot_promise_is_refused_and_nothing_starts(cli: Cli):
    given = ("start", "checkout", "--id", "lasting", "--input", '{"price": 1}')
    outcome = cli(*given, "--durability", "fsync", code=Exit.UNUSABLE)
    assert outcome.stderr.startswith("error: durability fsync cannot be promised by this server")
    cli("show", "lasting", code=Exit.UNKNOWN)
    assert cli(*given, "--durability", "fast").stdout == "lasting\n"


def test_a_durability_that_is_none_is_refused_with_those_there_are(cli: Cli):
    outcome = cli("start", "checkout", "--durability", "eternal", code=Exit.UNUSABLE)
    assert "fast" in outcome.stderr and "replicated" in outcome.stderr


def test_a_unique_key_gives_the_open_run_or_fails(cli: Cli, gate: Path):
    given = ("start", "held", "--input", json.dumps({"path": str(gate)}), "--unique", "k")
    first = cli(*given).stdout.strip()
    assert cli(*given).stdout.strip() == first
    outcome = cli(*given, "--if-running", "fail", code=Exit.CONFLICT)
    assert f"run {first!r} has the unique key 'k'" in outcome.stderr
    second = cli(*given, "--if-running", "replace").stdout.strip()
    assert second != first
    assert f"run {first}, which it replaces, is to end" in cli("show", second).stdout
    gate.touch()


def test_debounced_starts_are_one_run(cli: Cli):
    given = ("start", "checkout", "--debounce", "200ms", "--key", "k")
    first = cli(*given, "--input", '{"price": 1}').stdout.strip()
    again = cli(*given, "--input", '{"price": 100}', "--wait", "--max-wait", "10m")
    assert again.stderr.strip() == first
    assert again.data == 100 + 25 + 5


def test_options_of_keys_that_do_not_go_together_are_refused(cli: Cli):
    for options in (
        ("--if-running", "fail"), ("--period", "1h"), ("--debounce", "5s"), ("--key", "k"),
        ("--unique", "k", "--id", "mine"), ("--unique", ""), ("--max-wait", "1s"),
        ("--unique", "k", "--period", "1h", "--if-running", "replace"),
    ):  # fmt: skip
        cli("start", "checkout", *options, code=Exit.UNUSABLE)
