"""The SQLite file: one row an issue, written by any number of threads and processes at once."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from contextlib import closing
from functools import cache
from pathlib import Path

import msgspec

from examples.enrich_issues.enrichment import EnrichedIssue

BUSY_TIMEOUT = 30.0
"""Seconds that a writer waits for another process's transaction."""

_CREATE = """
CREATE TABLE IF NOT EXISTS issues (
    number INTEGER PRIMARY KEY,
    title TEXT NOT NULL,
    state TEXT NOT NULL,
    labels TEXT NOT NULL,
    days_open INTEGER NOT NULL,
    comments INTEGER NOT NULL,
    participants INTEGER NOT NULL,
    last_activity TEXT NOT NULL,
    pull_requests INTEGER NOT NULL,
    merged_pull_requests INTEGER NOT NULL,
    reviews INTEGER NOT NULL
)
"""

_UPSERT = """
INSERT INTO issues VALUES (
    :number, :title, :state, :labels, :days_open, :comments, :participants, :last_activity,
    :pull_requests, :merged_pull_requests, :reviews
)
ON CONFLICT (number) DO UPDATE SET
    title = excluded.title,
    state = excluded.state,
    labels = excluded.labels,
    days_open = excluded.days_open,
    comments = excluded.comments,
    participants = excluded.participants,
    last_activity = excluded.last_activity,
    pull_requests = excluded.pull_requests,
    merged_pull_requests = excluded.merged_pull_requests,
    reviews = excluded.reviews
"""


class IssueStore:
    """One connection, which the threads of a process take turns to use.

    A write that is repeated, by a retry or by another process, leaves the same row behind.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._turn = threading.Lock()
        self._connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT, check_same_thread=False)
        self._connection.row_factory = sqlite3.Row
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        with self._connection:
            self._connection.execute(_CREATE)

    def write(self, issues: Iterable[EnrichedIssue]) -> int:
        """Write the rows in one transaction; returns how many."""
        rows = [_to_row(issue) for issue in issues]
        with self._turn, self._connection:
            self._connection.executemany(_UPSERT, rows)
        return len(rows)

    def clear(self) -> None:
        with self._turn, self._connection:
            self._connection.execute("DELETE FROM issues")

    def rows(self) -> dict[int, EnrichedIssue]:
        """Every row, by issue number."""
        with self._turn, closing(self._connection.cursor()) as cursor:
            cursor.execute("SELECT * FROM issues ORDER BY number")
            issues = [_from_row(row) for row in cursor]
        return {issue.number: issue for issue in issues}

    def close(self) -> None:
        self._connection.close()


@cache
def store_at(path: Path) -> IssueStore:
    """This process's store at `path`, opened when it is first asked for."""
    return IssueStore(path)


def _to_row(issue: EnrichedIssue) -> dict[str, object]:
    row: dict[str, object] = msgspec.to_builtins(issue)
    return {**row, "labels": msgspec.json.encode(issue.labels).decode()}


def _from_row(row: sqlite3.Row) -> EnrichedIssue:
    fields: dict[str, object] = dict(row)
    labels = msgspec.json.decode(str(fields["labels"]))
    return msgspec.convert({**fields, "labels": labels}, EnrichedIssue)
