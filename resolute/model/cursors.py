"""Cursors: how far a flow has come with something outside, kept from one run to the next."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from resolute.model.codec import decoder

T = TypeVar("T")
D = TypeVar("D")


class CursorTarget(msgspec.Struct, frozen=True):
    """Which cursor a node moves, and the path of its new value in the node's output ('': all)."""

    name: str
    path: str = ""

    @property
    def steps(self) -> tuple[str, ...]:
        return tuple(self.path.split(".")) if self.path else ()


class Cursor:
    """What `state.cursor(name)` gives: the last value that was saved, if there is one."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes | None) -> None:
        self._data = data

    @property
    def is_set(self) -> bool:
        return self._data is not None

    @property
    def value(self) -> Any:
        """What was saved, None where nothing was."""
        return None if self._data is None else decoder(Any)(self._data)

    def get(self, type_: type[T]) -> T | None:
        """The value as a `type_`, None where there is none. Raises msgspec.ValidationError."""
        return self.get_or(type_, None)

    def get_or(self, type_: type[T], default: D) -> T | D:
        """The value as a `type_`, or `default` where there is none."""
        return default if self._data is None else decoder(type_)(self._data)

    def time_or(self, default: datetime) -> datetime:
        return self.get_or(datetime, default)

    def text_or(self, default: str) -> str:
        """The value as text: a number or a time too."""
        found = self.value if self.is_set else default
        return found.isoformat() if isinstance(found, datetime) else str(found)

    def int_or(self, default: int) -> int:
        return self.get_or(int, default)


class SavedBy(NamedTuple):
    """Which step of which run saves a cursor; the greater one has saved it later.

    `started` is when the run began, in ms of Unix time by Redis's clock.
    """

    started: int
    run: str
    seq: int


class CursorBackend(Protocol):
    """Keeps the cursors of flows elsewhere than in Redis.

    Both are plain functions, called in threads of a worker's processes, more than one at a time. A
    StorageUnavailable that they raise has the node tried again a little later, without using up an
    attempt; all else they raise is an error of the node that reads or saves.
    """

    def load(self, namespace: str, name: str) -> bytes | None:
        """The value as it was given to `save`; None where there is none."""
        ...

    def save(self, namespace: str, name: str, value: bytes, by: SavedBy) -> None:
        """Keep an encoded value, unless what is there was saved by a greater `by`.

        It may be called again with the same.
        """
        ...


def cursor_field(namespace: str, name: str) -> str:
    """Where a cursor is among all of them; no name has a slash."""
    return f"{namespace}/{name}"
