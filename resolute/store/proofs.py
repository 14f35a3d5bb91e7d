"""How a connection can prove that what it wrote will last, and which servers have such a proof.

`replicated` is WAIT. `fsync` is harder, since WAITAOF cannot be believed everywhere: under
`appendfsync everysec`, Redis 7.2 and 7.4 and every Valkey known so far answer it for data that no
fsync has covered (redis/redis#13793, mended in Redis 8.0; tests/store/test_power_loss.py shows it).
Under `always` the reply to the write itself comes after its fsync, on every server; WAITAOF only
adds that the file is the one a restart would read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from resolute.durability import Durability
from resolute.errors import DurabilityUnavailable
from resolute.store.connection import Command, Connection, ServerReply
from resolute.store.server import parse_info

SETTINGS: Command = ("CONFIG", "GET", "appendonly", "appendfsync", "no-appendfsync-on-rewrite")
# From here on WAITAOF waits for an fsync under everysec too. No Valkey is known to.
HONEST = {"redis": (8, 0)}
NEEDS_FSYNC = "needs appendonly yes and appendfsync always; or everysec on Redis 8.0 or later"


@dataclass(frozen=True, slots=True)
class Proof:
    """What to send after writes, and how to read the answers: '' or what is missing."""

    commands: tuple[Command, ...]
    find_missing: Callable[[Sequence[Any]], str]


async def find_proof(
    connection: Connection, level: Durability, replicas: int, within: float
) -> Proof:
    """The proof that this server has; a wait takes at most `within` (s).

    Raises DurabilityUnavailable, StoreUnavailable, ServerReply (READONLY for a replica).
    """
    milliseconds = max(1, round(within * 1000))  # 0 would be for ever
    if level is Durability.REPLICATED:
        return await _replication(connection, replicas, milliseconds)
    return await _fsync(connection, milliseconds)


async def _replication(connection: Connection, replicas: int, milliseconds: int) -> Proof:
    (probe,) = await connection.request_all([("WAIT", 0, 1)])
    if isinstance(probe, ServerReply):
        _raise_passing(probe)
        raise DurabilityUnavailable(Durability.REPLICATED, str(probe), "needs WAIT")

    def find_missing(replies: Sequence[Any]) -> str:
        (count,) = replies
        if isinstance(count, int):
            return "" if count >= replicas else f"{count} of {replicas} replica(s) have it"
        return str(count)

    return Proof((("WAIT", replicas, milliseconds),), find_missing)


async def _fsync(connection: Connection, milliseconds: int) -> Proof:
    probe, settings, info = await connection.request_all(
        [("WAITAOF", 1, 0, 1), SETTINGS, ("INFO", "server")]
    )
    has_wait = not isinstance(probe, ServerReply)
    if not has_wait:
        _raise_passing(probe)
    wait: Command = ("WAITAOF", 1, 0, milliseconds)
    kind, version = _version(info)
    is_honest = has_wait and kind in HONEST and version >= HONEST[kind]
    if isinstance(settings, ServerReply):
        if is_honest:
            return Proof((wait,), _find_unsynced)
        raise _refusal(f"its settings may not be read ({settings}); {_who(kind, version)}")
    match _pairs(settings):
        case {"appendonly": "yes", "appendfsync": "always"} if has_wait:
            return Proof((wait, SETTINGS), _unchanged(settings, _find_unsynced))
        case {"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no"}:
            return Proof((SETTINGS,), _unchanged(settings, _nothing))
        case {"appendonly": "yes", "appendfsync": "everysec"} if is_honest:
            return Proof((wait,), _find_unsynced)
        case found:
            shown = ", ".join(f"{name} {value}" for name, value in found.items())
            lies = has_wait and found.get("appendfsync") == "everysec"
            because = ", whose WAITAOF answers before the disk has it" if lies else ""
            raise _refusal(f"{_who(kind, version)} with {shown or 'settings unknown'}{because}")


def _refusal(has: str) -> DurabilityUnavailable:
    return DurabilityUnavailable(Durability.FSYNC, has, NEEDS_FSYNC)


def _raise_passing(error: ServerReply) -> None:
    """A primary that became a replica, or is loading: nothing is wrong with what it can prove."""
    if "replica" in str(error):
        raise ServerReply(f"READONLY {error}")
    if error.code not in ("ERR", "NOPERM"):
        raise error


def _find_unsynced(replies: Sequence[Any]) -> str:
    match replies[0]:
        case [1, *_]:
            return ""
        case ServerReply() as error:
            return str(error)
        case _:
            return "the disk has not confirmed it in time"


def _nothing(_: Sequence[Any]) -> str:
    return ""


def _unchanged(
    settings: Any, find_missing: Callable[[Sequence[Any]], str]
) -> Callable[[Sequence[Any]], str]:
    """`find_missing`, and that the settings on which it rests are what they were."""

    def find(replies: Sequence[Any]) -> str:
        if replies[-1] != settings:
            return "the server's settings were changed meanwhile"
        return find_missing(replies)

    return find


def _pairs(reply: Any) -> dict[str, str]:
    words = [str(word, "utf-8") for word in cast("list[bytes]", reply)]
    return dict(zip(words[::2], words[1::2], strict=True))


def _version(info: Any) -> tuple[str, tuple[int, ...]]:
    if not isinstance(info, bytes):  # INFO may be forbidden
        return "", ()
    found = parse_info(info)
    kind = "valkey" if "valkey_version" in found else "redis"
    return kind, tuple(int(part) for part in found[f"{kind}_version"].split("."))


def _who(kind: str, version: Sequence[int]) -> str:
    return f"{kind} {'.'.join(map(str, version))}" if kind else "a server of unknown version"
