"""Flows that go on where they came to: by Redis, and by a database of their author's."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager

from resolute import FlowBuilder, FlowState, SavedBy, StorageUnavailable, manual, node
from tests.e2e.app import folder, note

AWAY = "database-away"  # a file that is there while the database is not


@node("count")
async def count(since: int) -> list[int]:
    return [since + 1, since + 2, since + 3]


def since(state: FlowState) -> int:
    return state.cursor("number").int_or(0)


class Sqlite:
    """Cursors in a file of SQLite, for all processes of a machine."""

    def load(self, namespace: str, name: str) -> bytes | None:
        with self._connected() as database:
            row = database.execute(
                "SELECT value FROM cursors WHERE name = ?", (f"{namespace}/{name}",)
            ).fetchone()
            return row and row[0]

    def save(self, namespace: str, name: str, value: bytes, by: SavedBy) -> None:
        with self._connected() as database:
            database.execute(
                "INSERT INTO cursors VALUES (?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
                " value = excluded.value, started = excluded.started, run = excluded.run,"
                " seq = excluded.seq WHERE (started, run, seq) <="
                " (excluded.started, excluded.run, excluded.seq)",
                (f"{namespace}/{name}", value, *by),
            )

    @contextmanager
    def _connected(self) -> Generator[sqlite3.Connection]:
        if (folder() / AWAY).exists():
            note("away")
            raise StorageUnavailable("the database is away")
        with closing(sqlite3.connect(folder() / "cursors.sqlite")) as database, database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS cursors"
                " (name TEXT PRIMARY KEY, value BLOB, started INT, run TEXT, seq INT)"
            )
            yield database


counting = count.with_input(since).with_cursor("number", "2")
flow = (
    FlowBuilder("count-on")
    .triggered_by(manual())
    .with_state(namespace="counted")
    .then(counting)
    .build()
)
elsewhere = (
    FlowBuilder("count-elsewhere")
    .triggered_by(manual())
    .with_state(Sqlite())
    .then(counting)
    .build()
)
