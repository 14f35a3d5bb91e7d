"""The SQLite file: written twice, by many threads, by many processes, it holds the same rows."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from examples.enrich_issues.archive import SAMPLE, expected_rows, load
from examples.enrich_issues.enrichment import EnrichedIssue
from examples.enrich_issues.store import IssueStore

WRITE_ALL_ONE_BY_ONE = """
import sys
from pathlib import Path
from examples.enrich_issues.archive import SAMPLE, expected_rows, load
from examples.enrich_issues.store import store_at

for row in expected_rows(load(SAMPLE)).values():
    store_at(Path(sys.argv[1])).write([row])
"""


@pytest.fixture(scope="module")
def rows() -> dict[int, EnrichedIssue]:
    return expected_rows(load(SAMPLE))


def test_what_is_written_is_read_back(tmp_path: Path, rows: dict[int, EnrichedIssue]) -> None:
    store = IssueStore(tmp_path / "new folder" / "issues.sqlite")
    assert store.write(rows.values()) == len(rows)
    assert store.rows() == rows
    store.clear()
    assert store.rows() == {}
    store.close()


def test_a_row_that_is_written_again_takes_the_place_of_the_old_one(
    tmp_path: Path, rows: dict[int, EnrichedIssue]
) -> None:
    store = IssueStore(tmp_path / "issues.sqlite")
    first = next(iter(rows.values()))
    store.write([msgspec.structs.replace(first, title="old", labels=(), reviews=99)])
    store.write([first])
    assert store.rows() == {first.number: first}
    store.close()


def test_threads_write_through_one_store(tmp_path: Path, rows: dict[int, EnrichedIssue]) -> None:
    store = IssueStore(tmp_path / "issues.sqlite")

    def write_one(row: EnrichedIssue) -> int:
        return store.write([row])

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(write_one, [*rows.values()] * 5)) == 200
    assert store.rows() == rows
    store.close()


def test_processes_create_and_write_one_file(
    tmp_path: Path, rows: dict[int, EnrichedIssue]
) -> None:
    path = tmp_path / "issues.sqlite"
    root = Path(__file__).parents[2]
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE_ALL_ONE_BY_ONE, str(path)],
            cwd=root,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    assert [(writer.communicate()[1], writer.returncode) for writer in writers] == [("", 0)] * 4
    store = IssueStore(path)
    assert store.rows() == rows
    store.close()
