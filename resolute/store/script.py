"""Loading and calling Lua scripts: the header is the contract, and it is checked."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib.resources import files

import msgspec

from resolute.status import (
    CHILD,
    WOKEN,
    Code,
    EventKind,
    NodeStatus,
    RunStatus,
    TimerKind,
)

GROUP_WORKERS = "workers"
GROUP_COORDINATORS = "coordinators"

_pack = msgspec.msgpack.Encoder().encode

# Read at import, all of them: a process must not find those of another release when it first calls
# one, nor none because it has no descriptor left to read it with.
_TEXTS = {
    file.name.removesuffix(".lua"): file.read_text("utf-8")
    for file in (files("resolute.store") / "lua").iterdir()
    if file.name.endswith(".lua")
}


class Item(msgspec.Struct, array_like=True):
    """One item of a script's batch; the fields are those of the ITEM line of its header."""


class Script(msgspec.Struct, frozen=True):
    """A script's text, its SHA-1 (which is its version) and what its header declares."""

    name: str
    source: str
    sha: str
    keys: tuple[str, ...]
    item: tuple[str, ...]
    blobs: tuple[str, ...]


class KeyList:
    """KEYS of a call; `index` gives a key its place, once, counted from 1 as Lua does."""

    __slots__ = ("_places", "keys")

    def __init__(self, *fixed: str) -> None:
        self.keys = list(fixed)
        self._places = {key: i + 1 for i, key in enumerate(fixed)}

    def index(self, key: str) -> int:
        place = self._places.get(key)
        if place is None:
            self.keys.append(key)
            place = self._places[key] = len(self.keys)
        return place


def pack(*values: object) -> bytes:
    """The `common` argument of a call."""
    return _pack(values)


def pack_item(item: Item) -> bytes:
    """One item of a call."""
    return _pack(item)


@cache
def load_script(name: str) -> Script:
    """The script of that name, with the prelude and its includes."""
    text = _TEXTS[name]
    shebang, _, body = text.partition("\n")
    header = [line[3:] for line in body.splitlines() if line.startswith("-- ")]
    includes = re.findall(r"^-- @include (\w+)$", body, re.MULTILINE)
    parts = [shebang, prelude(), *(_TEXTS[f"lib_{include}"] for include in includes), body]
    source = "\n".join(parts)
    return Script(
        name=name,
        source=source,
        sha=hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest(),
        keys=_words(header, "KEYS", stop="+item:"),
        item=_words(header, "ITEM", stop="BLOB", cut="("),
        blobs=_words(header, "BLOB", inside=True),
    )


def prelude() -> str:
    """The names that Python and Lua share, as Lua locals."""
    names = {
        **{status.name: status.value for status in RunStatus},
        **{f"NODE_{s.name}" if s.name == "RUNNING" else s.name: s.value for s in NodeStatus},
        **{code.name: code.value for code in Code},
        **{kind.name: kind.value for kind in EventKind},
        **{f"TIMER_{kind.name}": kind.value for kind in TimerKind},
        "CHILD": CHILD,
        "WOKEN": WOKEN,
        "WORKERS": GROUP_WORKERS,
        "COORDINATORS": GROUP_COORDINATORS,
        # A run and a node share these words; the plain names are the run's.
        "COMPLETED": RunStatus.COMPLETED.value,
        "FAILED": RunStatus.FAILED.value,
        "COMPLETED_NODE": NodeStatus.COMPLETED.value,
        "FAILED_NODE": NodeStatus.FAILED.value,
    }
    return "\n".join(f"local {name} = '{value}'" for name, value in sorted(names.items()))


def _words(
    header: list[str], label: str, *, stop: str = "", cut: str = "", inside: bool = False
) -> tuple[str, ...]:
    for line in header:
        if not (line.startswith(f"{label} ") or (inside and f" {label} " in line)):
            continue
        text = line.partition(f"{label} ")[2]
        for end in (stop, cut):
            text = text.partition(end)[0] if end else text
        return tuple(text.split())
    return ()
