"""FlowState: what a run has produced so far, read-only and loaded as it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar, cast, overload

import msgspec

from resolute.errors import ErrorInfo, MissingOutput
from resolute.model.codec import decoder
from resolute.model.cursors import Cursor
from resolute.model.nodes import Node
from resolute.model.plan import item_key
from resolute.model.references import DataRef, is_stub, stored_in

# Among the keys of outputs: which turn of a loop it is, how many outputs a wide step has.
TURN = "\0turn:"
COUNT = "\0count:"
CHILDREN = "\0children:"  # what the ids of a step's children begin with
# The list of a run's signals of one name; one of them, by its number; a field of the hash as it is.
ONE = "\0one:"  # one output of many, without those after it
CURSOR = "\0cursor:"  # a cursor, which is none of the run's own
SIGNALS, SIGNAL, FIELD = "\0signals:", "\0signal:", "\0field:"
NIL = b"\xc0"
_NOT_GIVEN: Any = object()


class Child(msgspec.Struct, frozen=True):
    """A run that a step of the run started, and has waited for; `error` says why it failed."""

    id: str
    error: ErrorInfo | None = None


T = TypeVar("T")
D = TypeVar("D")


class Outputs(Protocol):
    """Where a FlowState reads from: encoded values by output key."""

    def get(self, key: str) -> bytes | None:
        """The encoded output, or None where there is none."""
        ...

    def keys(self) -> Iterable[str]:
        """The keys of all outputs there are."""
        ...

    def input(self) -> bytes:
        """The encoded input of the flow."""
        ...

    def error(self, key: str) -> ErrorInfo | None:
        """The last error of the node with this output key."""
        ...

    def whole(self, stub: bytes, /) -> bytes:
        """The encoded value that a stub stands for: one that is in the storage.

        Raises StorageUnavailable, ObjectMissing, ChecksumMismatch.
        """
        ...


def whole(outputs: Outputs, data: bytes | None) -> bytes | None:
    """An encoded value, also where `data` only stands for it."""
    if data is not None and is_stub(data):
        return outputs.whole(data)
    return data


class FlowState:
    """The outputs of the nodes that completed, by node or by key.

    `state[node]` is typed by the node. Values are decoded once for each type.
    """

    __slots__ = ("_decoded", "_outputs")

    def __init__(self, outputs: Outputs) -> None:
        self._outputs = outputs
        self._decoded: dict[tuple[str, int], tuple[Any, Any]] = {}

    def __getitem__(self, node: Node[Any, T]) -> T:
        """The output of a node. Raises MissingOutput."""
        if not isinstance(cast("object", node), Node):
            hint = f": use state.get({node!r}, T)" if isinstance(node, str) else ""
            raise TypeError(f"state[...]: expected a node, got {node!r}{hint}")
        return self._load(node.key, node.output_type)

    def get(self, key: str, type_: type[T]) -> T:
        """The output under `key` as a `type_`.

        Raises MissingOutput, or msgspec.ValidationError where it is something else.
        """
        return self._load(key, type_)

    @overload
    def get_or(self, key: Node[Any, T], default: D, /) -> T | D: ...
    @overload
    def get_or(self, key: str, type_: type[T], default: D) -> T | D: ...
    @overload
    def get_or(self, key: str, type_: Any, default: Any) -> Any: ...
    def get_or(
        self, key: str | Node[Any, Any], type_: Any = _NOT_GIVEN, default: Any = _NOT_GIVEN
    ) -> Any:
        """`get_or("key", T, default)` or `get_or(node, default)`."""
        name = _key(key)
        given = [one for one in (type_, default) if one is not _NOT_GIVEN]
        if len(given) != (1 if isinstance(key, Node) else 2):
            raise TypeError(
                'get_or: expected get_or(node, default) or get_or("key", T, default), got'
                f" {len(given)} argument(s) after {key!r}"
            )
        expected, fallback = key.output_type if isinstance(key, Node) else type_, given[-1]
        return self._load(name, expected) if self.has(name) else fallback

    def has(self, key: str | Node[Any, Any]) -> bool:
        """Whether the node completed and its output is there."""
        return self._outputs.get(_key(key)) is not None

    def keys(self) -> list[str]:
        """The keys of all outputs, sorted."""
        return sorted(self._outputs.keys())

    def input(self, type_: type[T]) -> T:
        """The input of the flow."""
        return decoder(type_)(whole(self._outputs, self._outputs.input()) or NIL)

    def ref(self, key: str | Node[Any, Any]) -> DataRef[Any]:
        """The output by reference, without loading it: one that is in the storage.

        There is what is above the flow's `max_payload`, and what an `output_ref` in the flow names.
        Raises MissingOutput, also where it is not in the storage.
        """
        name, type_ = (key.key, key.output_type) if isinstance(key, Node) else (key, Any)
        data = self._outputs.get(name)
        stored = stored_in(data) if data is not None and is_stub(data) else []
        if len(stored) != 1:
            raise MissingOutput(name, "it is not in the storage" if data else "it is not there")
        return DataRef(stored[0].path, stored[0].size, stored[0].sha256, type_)

    def iter(self, key: str, type_: type[T]) -> Iterator[T | None]:
        """The outputs of a `then_each` or `then_children`, in order, fetched as they are asked for.

        None stands for one that failed. Raises MissingOutput.
        """
        decode = decoder(type_)
        for index in range(self.count(key)):
            data = self._outputs.get(item_key(key, index))
            data = whole(self._outputs, data)
            yield None if data is None else decode(data)

    def item(self, key: str, index: int, type_: type[T]) -> T:
        """One output of a `then_each` or `then_children`, by its index from 0.

        Raises MissingOutput, also where it failed.
        """
        data = whole(self._outputs, self._outputs.get(ONE + item_key(key, index)))
        if data is None:
            raise MissingOutput(item_key(key, index))
        return decoder(type_)(data)

    def count(self, key: str) -> int:
        """How many outputs a `then_each` or `then_children` has. Raises MissingOutput."""
        count = self._outputs.get(COUNT + key)
        if count is None:
            raise MissingOutput(key)
        return int(count)

    def children(self, step: str) -> list[Child]:
        """The runs that a `then_children` started, in order; of a loop those of the latest turn.

        What they returned is the output of the step. Raises MissingOutput.
        """
        first, count = self._outputs.get(CHILDREN + step), self._outputs.get(COUNT + step)
        if count is None:
            raise MissingOutput(step)
        base = str(first or b"", "utf-8")
        return [
            Child(f"{base}{index}", self.error(item_key(step, index)))
            for index in range(int(count))
        ]

    def signals(self, name: str, type_: type[T]) -> list[T]:
        """The signals of a name, oldest first.

        In the body of a loop they are those that came since the turn before began, the same for
        all nodes of a turn and all their attempts: a turn takes them, and each is seen in one.
        Elsewhere they are those that have come by now and that no gate and no loop has taken.
        Raises UnknownSignal where the flow declares none of that name.
        """
        data = self._outputs.get(SIGNALS + name)
        return decoder(list[type_])(data) if data is not None else []

    def cursor(self, name: str) -> Cursor:
        """How far the flow had come with something outside when it was saved last, by any run."""
        return Cursor(self._outputs.get(CURSOR + name))

    def turn(self, loop: str) -> int:
        """Which turn of a loop this is, from 1. Raises MissingOutput outside of it."""
        try:
            data = self._outputs.get(TURN + loop)
        except KeyError:
            raise MissingOutput(loop, "the flow has no loop of that name") from None
        if data is None:
            raise MissingOutput(loop, "the loop has not begun")
        return int(data)

    def error(self, node: str | Node[Any, Any]) -> ErrorInfo | None:
        """Why a best-effort node failed; None if it did not."""
        key = _key(node)
        return None if self._outputs.get(key) is not None else self._outputs.error(key)

    def _load(self, key: str, expected: Any) -> Any:
        cached = self._decoded.get((key, id(expected)))
        if cached is not None:
            return cached[1]
        data = whole(self._outputs, self._outputs.get(key))
        if data is None:
            error = self._outputs.error(key)
            if error is not None:
                raise MissingOutput(key, f"the node failed: {error.type}: {error.message}")
            raise MissingOutput(key)
        value = decoder(expected)(data)
        # `expected` is kept with the value: while it lives, no other type has its id.
        self._decoded[key, id(expected)] = (expected, value)
        return value


def _key(key: str | Node[Any, Any]) -> str:
    if isinstance(key, Node):
        return key.key
    if not isinstance(cast("object", key), str):
        raise TypeError(f"expected a node or an output key, got {key!r}")
    return key
