"""From the input of a node to what is sent: path, query and body."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast
from urllib.parse import quote, urlencode

import msgspec

from resolute.model.codec import encode_foreign
from resolute.model.paths import field_types

_FIELD = re.compile(r"\{([A-Za-z_]\w*)\}")
_ANSWERING = ("GET", "HEAD")  # their input goes into the query


class Parts(NamedTuple):
    """What an input comes to. `query` is encoded; `body` is JSON."""

    path: str
    query: str
    body: bytes | None


@dataclass(frozen=True)
class Route:
    """A method and a path with fields of the input in braces; `query` are those for the query."""

    method: str
    path: str
    query: frozenset[str]

    @classmethod
    def of(cls, method: str, path: str, input_type: Any, query: Iterable[str]) -> Route:
        """Checked against the type of the input. Raises ValueError."""
        if not path.startswith("/") or set(path) & set("?# ") or "//" in path:
            raise ValueError(f"path {path!r}: expected one that begins with /, without ? and #")
        if set(_FIELD.sub("", path)) & set("{}"):
            raise ValueError(f"path {path!r}: expected names of fields in braces")
        route = cls(method, path, frozenset(query))
        known = _fields_of(input_type)
        wanted = [*route.fields, *sorted(route.query)]
        if wanted and input_type is None:
            raise ValueError(f"path {path!r}: expected input=, which has {', '.join(wanted)}")
        missing = [name for name in wanted if known and name not in known]
        if missing:
            has = ", ".join(known)
            raise ValueError(f"path {path!r}: the input has no {missing[0]!r}; it has {has}")
        return route

    @property
    def fields(self) -> list[str]:
        """The fields of the input that the path has."""
        return _FIELD.findall(self.path)

    @property
    def writes(self) -> bool:
        return self.method not in _ANSWERING

    def parts(self, value: Any, extra: Mapping[str, str]) -> Parts:
        """What is sent for an input, `extra` with its query. Raises ValueError, TypeError."""
        plain: Any = msgspec.to_builtins(value, str_keys=True, enc_hook=encode_foreign)
        if not isinstance(plain, dict):
            return self._of_other(plain, extra)
        fields = cast("dict[str, Any]", plain)
        path = _FIELD.sub(lambda match: _segment(match[1], fields), self.path)
        rest = {name: one for name, one in fields.items() if name not in self.fields}
        asked = {name: one for name, one in rest.items() if not self.writes or name in self.query}
        body = {name: one for name, one in rest.items() if name not in asked}
        pairs = [*extra.items(), *query_pairs(asked)]
        return Parts(path, _query(pairs), msgspec.json.encode(body) if body else None)

    def _of_other(self, plain: Any, extra: Mapping[str, str]) -> Parts:
        """An input without fields is a body, or nothing."""
        if plain is not None and not self.writes:
            raise TypeError(f"input: expected an object with fields, got {type(plain).__name__}")
        if self.fields:
            raise TypeError(f"input: expected an object with {', '.join(self.fields)}")
        body = None if plain is None else msgspec.json.encode(plain)
        return Parts(self.path, _query([*extra.items()]), body)


def query_pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names and texts of a query: a list is its name again and again, None is left out."""
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        items = cast("list[Any]", value) if isinstance(value, list | tuple) else [value]
        found += [(name, _text(name, item)) for item in items if item is not None]
    return found


def _query(pairs: list[tuple[str, str]]) -> str:
    return urlencode(pairs, quote_via=quote)


def _segment(name: str, fields: Mapping[str, Any]) -> str:
    """A part of the path, encoded; one that would lead elsewhere is refused."""
    if fields.get(name) is None:
        raise ValueError(f"input: expected a {name!r} for the path, got none")
    text = _text(name, fields[name])
    if text in ("", ".", ".."):
        raise ValueError(f"input: expected a {name!r} that can be in a path, got {text!r}")
    return quote(text, safe="")


def _text(name: str, value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case str() | int() | float():
            return str(value)
        case _:
            kind = type(value).__name__
            raise TypeError(f"input: expected a text, number or date as {name!r}, got {kind}")


def _fields_of(kind: Any) -> list[str]:
    """The names that the fields have on the wire; none where the type does not tell."""
    if hasattr(kind, "__struct_encode_fields__"):
        return list(kind.__struct_encode_fields__)
    return list(field_types(kind))
