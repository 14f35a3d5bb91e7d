"""A flow of large values, in a process that dies once it has stored an object."""

from __future__ import annotations

import os
import signal

from resolute import FlowBuilder, FlowState, Storage, manual, node
from resolute.model.references import Stored
from tests.e2e import app
from tests.e2e.app import note

TEXT = "a long text " * 50
DIED = "died"  # a file: it has died once


@node("write")
async def write(text: str) -> str:
    note("write", "large")
    return text


@node("shout")
def shout(text: str) -> str:
    return text.upper()


def length(state: FlowState) -> int:
    return len(state[write])


storing = (
    FlowBuilder("storing", input=str)
    .triggered_by(manual("test"))
    .with_max_payload(100)
    .with_query("length", length)
    .then(write)
    .then(shout)
    .build()
)

_write = Storage.write


def _write_and_die(self: Storage, folder: str, name: str, data: bytes) -> Stored:
    stored = _write(self, folder, name, data)
    if name == "1.0" and not (app.folder() / DIED).exists():
        (app.folder() / DIED).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return stored


if "RESOLUTE_CHILD" in os.environ:  # a worker's process
    Storage.write = _write_and_die
