"""One attempt of a node: its input, and what came out. No Redis in here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from resolute.durations import milliseconds
from resolute.engine.bound import FOLDER, Bound, Source
from resolute.engine.preloaded import state_of
from resolute.engine.undoing import UNDO_HEAD, undo_value
from resolute.errors import MissingOutput
from resolute.model import codec
from resolute.model.flow import Lister, Predicate, Until
from resolute.model.functions import check_answer
from resolute.model.messages import Entry
from resolute.model.plan import Children
from resolute.model.references import is_stub
from resolute.model.schemas import problem_of
from resolute.model.state import NIL, Outputs, whole

MAX_ITEMS = 1_000_000  # of one wide step
MAX_RUN_ID = 1_000  # characters of a child's id, which has the ids of all above it


def input_value(
    bound: Bound,
    entry: Entry,
    fields: Sequence[str],
    values: Sequence[bytes | None],
    remote: Outputs,
) -> Any:
    """What the function is called with. Raises what a user's input function raises."""
    count = len(fields) - len(bound.asides) - bound.keeps_progress(entry)
    fields, values = fields[:count], values[:count]
    match bound.source:
        case Source.NOTHING:
            return None
        case Source.PREVIOUS:
            return bound.decode(bound.previous.encoded(values, remote))
        case Source.ITEM:
            if values[0] is None:
                raise MissingOutput(bound.plan.key, "the item is not stored")
            return bound.decode(whole(remote, values[0]) or NIL)
        case Source.PREPARED:
            if values[0] is None:
                raise MissingOutput(
                    bound.plan.key, f"its input {bound.plan.key}.input was not made"
                )
            return bound.decode(whole(remote, values[0]) or NIL)
        case Source.UNDO:
            return undo_value(bound, values[0], remote)
        case Source.STATE:
            return state_of(bound, fields, values, remote)
        case Source.VALUE:
            # Encoded and decoded: each attempt has its own copy, as if it came over the wire.
            return bound.decode(codec.encode(bound.input, what="input"))
        case Source.FUNCTION:
            made = bound.input(state_of(bound, fields, values, remote))
            return bound.decode(codec.encode(made, max_payload=codec.UNBOUNDED, what="input"))


def is_slow(bound: Bound, values: Sequence[bytes | None]) -> bool:
    """Whether the input, or what the node asks of the state, may have to be read from elsewhere.

    `values` are those of the fields of `bound`.
    """
    if bound.aside(FOLDER, values) is not None:
        return True
    if bound.flow.cursors is not None and bound.source in (Source.FUNCTION, Source.STATE):
        return True
    if bound.source is Source.UNDO:
        return values[0] is not None and is_stub(values[0][UNDO_HEAD:])
    return any(value is not None and is_stub(value) for value in values)


def encoded_items(
    bound: Bound, flow_id: str, items: Iterable[Any], most: int = 0
) -> Iterator[bytes]:
    """What a `Lister` said, as it is kept; `most` is as in `encode_output`.

    Raises as `codec.encode` does; TypeError, ValueError.
    """
    limit = max(most, bound.flow.max_payload)
    step = bound.flow.plan.instructions[bound.pc + 1]
    if isinstance(step, Children) and len(step.child_id(flow_id, 1, MAX_ITEMS)) > MAX_RUN_ID:
        raise ValueError(f"expected ids of children of {MAX_RUN_ID:,} characters at most")
    expected = bound.binding.item_type if isinstance(bound.binding, Lister) else Any
    check = None if expected is Any else codec.decoder(expected)
    for number, item in enumerate(items):
        if number == MAX_ITEMS:
            raise ValueError(f"expected at most {MAX_ITEMS:,} items")
        what = f"items[{number}]"
        data = codec.encode(item, max_payload=limit, what=what)
        if check is not None:
            _check_item(check, data, what)
        yield data


def _check_item(check: Callable[[bytes], Any], data: bytes, what: str) -> None:
    try:
        check(data)
    except msgspec.ValidationError as error:
        raise msgspec.ValidationError(f"{what}: {error}") from None


def encode_output(bound: Bound, value: Any, most: int = 0) -> tuple[bytes, str]:
    """The encoded output, checked against its type, and the answer of a question for its event.

    With a storage it may have `most` bytes, where that is more than the flow's `max_payload`.
    """
    match bound.binding:
        case Predicate():
            check_answer(bound.plan.name, value)
            answer = bool(value)
            return codec.encode(answer), "1" if answer else "0"
        case Lister():
            return codec.encode(value), str(value)  # how many there were
        case Until():
            until = moment(value, bound.plan.name)
            return codec.encode(until), until
        case _:
            pass
    limit = max(most, bound.flow.max_payload)
    data = codec.encode(value, max_payload=limit, what="output")
    if bound.check_output is not None:
        try:
            bound.check_output(data)
        except msgspec.ValidationError as error:
            raise msgspec.ValidationError(f"output of node {bound.plan.name!r}: {error}") from None
    if bound.named is not None and bound.named.returns:
        problem = problem_of(bound.named.returns, codec.decode(data))
        if problem:
            flow, name = bound.flow.name, bound.plan.name
            raise msgspec.ValidationError(
                f"output of node {name!r} is not what flow {flow!r} expects: {problem}"
            )
    return data, ""


def moment(value: Any, name: str) -> str:
    """When a sleep is over, as `Dispatch.until` has it, from what a function said. A TypeError
    where that is neither a time nor a span.
    """
    match value:
        case datetime():
            if value.tzinfo is None:
                raise TypeError(f"{name}: expected a datetime with a time zone, got {value!r}")
            return str(max(0, round(value.timestamp() * 1000)))
        case timedelta():
            return f"+{max(0, round(value.total_seconds() * 1000))}"
        case bool():
            pass
        case int() | float() | str():
            return f"+{milliseconds(value)}"
        case _:
            pass
    raise TypeError(f"{name}: expected a datetime, a timedelta or a duration, got {value!r}")
