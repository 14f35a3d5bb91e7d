"""Markers: what stands in an input for a value that only a run has."""

from __future__ import annotations

from enum import StrEnum
from typing import Any


class MarkerKind(StrEnum):
    """What a marker stands for; `Template` knows how each is found."""

    OUTPUT = "output"
    REF = "output_ref"
    INPUT = "input_data"
    CURSOR = "cursor"
    CURSOR_TEXT = "cursor_string"


class Marker:
    """Stands for the value at `path`. No type that msgspec encodes, so that none gets out."""

    __slots__ = ("kind", "path")

    def __init__(self, kind: MarkerKind, path: str) -> None:
        self.kind = kind
        self.path = path

    def __repr__(self) -> str:
        return f"{self.kind.value}({self.path!r})" if self.path else f"{self.kind.value}()"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Marker) and (self.kind, self.path) == (other.kind, other.path)

    def __hash__(self) -> int:
        return hash((self.kind, self.path))


def output(path: str) -> Any:
    """In a value given to `with_input`: an output of the run, or a part of one.

    The path is an output key, then fields, keys or indices: ``output("vpc")``,
    ``output("vpc.subnets.0.id")``. Of keys that have dots, the longest that fits is meant.
    What is not there is an error at `build()` where the types say so, else MissingOutput.
    """
    if not path:
        raise ValueError('output: expected a path such as "vpc.name", got an empty one')
    return Marker(MarkerKind.OUTPUT, path)


def output_ref(key: str) -> Any:
    """In a value given to `with_input`: an output by reference, as a `DataRef`.

    It goes to the storage whatever its size, and who gets the reference loads it or hands it on. An
    output that is a DataRef is given as it is. A path into an output is an error at `build()`.
    """
    if not key:
        raise ValueError('output_ref: expected an output key such as "docs", got an empty one')
    return Marker(MarkerKind.REF, key)


def input_data(path: str = "") -> Any:
    """In a value given to `with_input`: the flow's input, or the part of it at `path`.

    What is not there is an error at `build()` where the types say so, else MissingInput.
    """
    return Marker(MarkerKind.INPUT, path)


def cursor(name: str) -> Any:
    """In a value given to `with_input`: the cursor as it was saved last, None where it was not."""
    return Marker(MarkerKind.CURSOR, name)


def cursor_string(name: str) -> Any:
    """In a value given to `with_input`: the cursor as text, "" where it was never saved."""
    return Marker(MarkerKind.CURSOR_TEXT, name)
