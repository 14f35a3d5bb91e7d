"""`resolute ls`: filters, pages, and rows that fit the terminal."""

from __future__ import annotations

from resolute.cli.exits import Exit
from tests.cli.helpers import Cli


def test_it_filters_by_flow_and_status(cli: Cli):
    failed = cli.ended("saga", code=Exit.FAILED)
    completed = cli.ended("checkout")
    assert failed in {run["id"] for run in cli.json("ls", "--status", "failed")}
    of_flow = cli.json("ls", "--flow", "checkout")
    assert completed in {run["id"] for run in of_flow}
    assert {run["flow"] for run in of_flow} == {"checkout"}
    assert cli.json("ls", "--flow", "checkout", "--status", "failed") == []


def test_pages_follow_each_other_without_gap_or_overlap(cli: Cli):
    started = [cli.ended("checkout", "--id", f"page-{number}") for number in range(5)]
    listing = ("ls", "--flow", "checkout", "--status", "completed")
    whole = [run["id"] for run in cli.json(*listing, "--limit", "1000")]
    paged: list[str] = []
    while page := cli.json(*listing, "--limit", "2", *(("--after", paged[-1]) if paged else ())):
        paged += [run["id"] for run in page]
    assert paged == whole
    assert set(started) <= set(whole)


def test_the_keys_of_json_are_those_of_run_info(cli: Cli):
    cli.ended("checkout")
    (run,) = cli.json("ls", "--limit", "1")
    assert set(run) == {
        "id", "flow", "status", "started", "ended", "queue", "plan", "error", "retry_of",
        "priority",
    }  # fmt: skip


def test_ids_and_statuses_are_whole_on_80_columns(cli: Cli):
    run_id = cli.ended("saga", code=Exit.FAILED)
    outcome = cli("ls", "--flow", "saga", "--limit", "1", columns=80)
    header, row = outcome.stdout.splitlines()
    assert header.split() == ["id", "flow", "status", "started", "took", "error"]
    assert row.startswith(f"{run_id}  saga")
    assert "✗ failed" in row and "ship: OutOfSt" in row
    assert len(row) <= 80


def test_where_there_may_be_more_it_says_how_to_go_on(cli: Cli):
    cli.ended("checkout")
    outcome = cli("ls", "--limit", "1")
    assert outcome.stderr.startswith("there may be more: --after ")


def test_no_such_run_to_go_on_after(cli: Cli):
    assert "nobody" in cli("ls", "--after", "nobody", code=Exit.UNKNOWN).stderr
