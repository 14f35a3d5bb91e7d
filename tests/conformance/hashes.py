"""What of a run's hash is the same wherever it ran: no times, no tokens, no stream ids."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from resolute.engine.undoing import UNDO_FAILED
from resolute.errors import ErrorInfo
from resolute.model.references import is_stub, stored_in
from resolute.store import runs

# `skip` too: whether a failing run is looked at before its last node settles is chance.
DIFFERENT = {
    "pages", "started", "moved", "ended", "rev", "token", "queue", "skip", "deadline", "terminate",
}  # fmt: skip
ERRORS = ("x:", "ux:", "error")

# The folder of a DataRef is of another length in memory, and so is the string that it is in.
_PATH = re.compile(rb"path[\xa0-\xbf\xd9]?.?[^ ]{0,200}?-[0-9a-z]{12}(?=\xa4size)")

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
        return _error(raw) if failed == UNDO_FAILED else _value(bytes(raw))
    return "some folder" if name == "folder" else _value(value)


def _value(data: bytes) -> object:
    """Itself; of what is in the storage, or refers to it, all but where it is there."""
    if is_stub(data):
        return [(stored.size, stored.sha256) for stored in stored_in(data)]
    return _PATH.sub(b"path", data)


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
