"""What is stored for a compensation, and what is made of that when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from resolute.engine.bound import UNDOS, Bound
from resolute.engine.preloaded import AWAY, Preloaded
from resolute.errors import ErrorInfo, MissingOutput, TerminalError
from resolute.model import codec
from resolute.model.flow import Notice, compensation_of
from resolute.model.nodes import PREVIOUS
from resolute.model.state import NIL, FlowState, Outputs, whole

_decode_undo = msgspec.msgpack.Decoder(tuple[int, msgspec.Raw]).decode

# What is stored for a compensation: its input, why that could not be made, or what it is made of.
UNDO_MADE, UNDO_FAILED, UNDO_OPEN = 0, 1, 2
MANY_UNDOS = 1000  # compensations of a run; of one in a loop beyond that the input is stored
UNDO_HEAD = 2  # bytes of a packed UndoInput before its data: those of the list and of `kind`


class UndoInput(NamedTuple):
    """What is stored for a compensation, encoded; `kind` says what it is."""

    kind: int
    data: bytes

    def pack(self, kept: bytes | None = None) -> bytes:
        """As the hash has it; `kept` is the stub that stands for the data, if it is stored."""
        return msgspec.msgpack.encode((self.kind, msgspec.Raw(kept or self.data)))

    def is_stored(self, bound: Bound, values: Sequence[bytes | None]) -> bool:
        """Whether it goes to the storage, if there is one: too large, or one of very many.

        `values` are those of the fields of `bound`.
        """
        many = int(bound.aside(UNDOS, values) or 0) >= MANY_UNDOS
        large = len(self.data) > bound.flow.max_payload
        return self.kind != UNDO_FAILED and (many or large)


def undo_input(bound: Bound, output: bytes, remote: Outputs, most: int = 0) -> UndoInput | None:
    """The stored input of the node's compensation: the snapshot at completion.

    `most` is as in `attempt.encode_output`. Of a node that is run by name it is the output: what
    the flow's code makes of that is computed by whoever runs the compensation, and has the code.
    """
    if bound.compensation is None:
        return None
    if bound.named is not None:
        return UndoInput(UNDO_OPEN, output)
    compensation = compensation_of(bound.binding)
    if compensation is None:
        raise LookupError(f"node {bound.plan.name!r} has no compensation")
    if isinstance(compensation, Notice) or compensation.input is PREVIOUS:
        return UndoInput(UNDO_MADE, output)
    try:
        state = FlowState(Preloaded(bound, {}, remote, own=(bound.plan.key, output)))
        limit = max(most, bound.flow.max_payload)
        made = _given(compensation.input, state, "input of the compensation", limit)
        return UndoInput(UNDO_MADE, made)
    except AWAY:
        raise  # what it reads cannot be read now, which says nothing about it
    except BaseException as error:  # SystemExit too: it is the user's function
        info = ErrorInfo.of(error, compensation.name)
        return UndoInput(UNDO_FAILED, msgspec.msgpack.encode(info))


def undo_value(bound: Bound, data: bytes | None, remote: Outputs) -> Any:
    """What a compensation is called with, from what was stored for it.

    Raises MissingOutput; TerminalError where it could not be made; what the user's function raises.
    """
    if data is None:
        raise MissingOutput(bound.plan.key, "the input of the compensation is not stored")
    kind, raw = _decode_undo(data)
    if kind == UNDO_OPEN and bound.named is None and bound.input is not PREVIOUS:
        own = (bound.undone.key, whole(remote, bytes(raw)) or NIL)
        state = FlowState(Preloaded(bound, {}, remote, own=own))
        given = _given(bound.input, state, "input of the compensation", codec.UNBOUNDED)
        return bound.decode(given)
    if kind == UNDO_FAILED:
        error = msgspec.msgpack.decode(raw, type=ErrorInfo)
        raise TerminalError(f"the input of the compensation could not be computed: {error}")
    return bound.decode(whole(remote, bytes(raw)) or NIL) if bound.takes_input else None


def _given(source: Any, state: FlowState, what: str, most: int) -> bytes:
    """What was given to `with_input`, encoded: a value, or what a function says."""
    made = source(state) if callable(source) else source
    return codec.encode(made, max_payload=most, what=what)
