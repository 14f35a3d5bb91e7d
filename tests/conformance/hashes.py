"""What of a run's hash is the same wherever it ran: no times, no tokens, no stream ids."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from resolute.engine.attempt import UNDO_FAILED
from resolute.errors import ErrorInfo
from resolute.store import runs

# `skip` too: whether a failing run is looked at before its last node settles is chance.
DIFFERENT = {"pages", "started", "moved", "ended", "rev", "token", "queue", "skip", "deadline"}
ERRORS = ("x:", "ux:", "error")

_decode_undo = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw]).decode


def comparable(fields: Mapping[str, bytes]) -> dict[str, object]:
    return {name: _part(name, value) for name, value in fields.items() if name not in DIFFERENT}


def _part(name: str, value: bytes) -> object:
    if name.startswith("n:"):
        return _record(runs.parse_record(value))
    if name.startswith("si:"):
        return "some time"
    if name.startswith("s:"):
        return value.rpartition(b"|")[0]
    if name.startswith(ERRORS):
        return _error(value)
    if name.startswith("ui:"):
        failed, raw = _decode_undo(value)
        return _error(raw) if failed == UNDO_FAILED else value
    return value


def _record(record: runs.Record) -> tuple[object, ...]:
    """Its state, attempts, crashes, and which of its parts are filled in.

    Not how often a limit handed it back: a machine that is slow lets a start be late.
    """
    filled = (bool(record.process), bool(record.entry))
    times = (record.begun is not None, record.ended is not None)
    return (record.status, record.attempt, record.crashes, *filled, *times)


def _error(value: bytes | msgspec.Raw) -> ErrorInfo:
    """Without its traceback, which goes through other code."""
    return msgspec.structs.replace(msgspec.msgpack.decode(value, type=ErrorInfo), traceback="")
