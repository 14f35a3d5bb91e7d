"""References to values in a storage: the stub that stands for a large one, and DataRef.

A stub is what a field of a run's hash holds in place of a value that is kept in the storage: a
MessagePack extension of ours, which no other value can begin with (`codec.encode` refuses it). What
a run returned to the one that started it may also be a list or a map with stubs in it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Generic, Protocol, TypeVar, cast, get_args, get_origin

import msgspec

T = TypeVar("T")

EXTENSIONS = (0xC8, 0xC9)  # the first byte of a stub; of 16 bits of length, and of 32
_ONE, _MANY = 0x52, 0x53  # types: a value in the storage; a list or map with stubs in it
MAX_PATH = 1024
NO_DATA = "no storage here: call it in a node, or use Client.load()"


class Stored(msgspec.Struct, frozen=True, array_like=True):
    """An object in a storage: its path below the storage's root, its bytes, their SHA-256 (hex)."""

    path: str
    size: int
    sha256: str


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Stored).decode


_decode_part = msgspec.msgpack.Decoder(dict[str, msgspec.Raw] | list[msgspec.Raw]).decode


def is_stub(data: bytes) -> bool:
    """Whether an encoded value is, or has in it, one that is in the storage."""
    first = data[:1]
    return (first == b"\xc8" and data[3:4] == b"\x52") or (
        first == b"\xc9" and data[5:6] == b"\x53"
    )


def stub_of(stored: Stored) -> bytes:
    """What is kept in place of the value."""
    payload = _encode(stored)
    return bytes((0xC8, *len(payload).to_bytes(2, "big"), _ONE)) + payload


def stub_around(data: bytes) -> bytes:
    """A stub of an encoded list or map that has stubs in it."""
    return bytes((0xC9, *len(data).to_bytes(4, "big"), _MANY)) + data


def stored_in(stub: bytes) -> list[Stored]:
    """All that a stub stands for. Raises ValueError for a damaged one."""
    if stub[3] == _ONE and stub[0] == 0xC8:
        return [_decode(stub[4:])]
    return [one for part in _parts(stub)[1] if is_stub(part) for one in stored_in(part)]


def fill(stub: bytes, read: Callable[[Stored], bytes]) -> bytes:
    """The encoded value that a stub stands for. Raises what `read` does, and ValueError."""
    if stub[3] == _ONE and stub[0] == 0xC8:
        return read(_decode(stub[4:]))
    keys, parts = _parts(stub)
    whole = [msgspec.Raw(_filled(part, read)) for part in parts]
    return _encode(whole if keys is None else dict(zip(keys, whole, strict=True)))


def _filled(data: bytes, read: Callable[[Stored], bytes]) -> bytes:
    return fill(data, read) if is_stub(data) else data


def _parts(stub: bytes) -> tuple[list[str] | None, list[bytes]]:
    """What a list (None) or a map (its keys) with stubs in it consists of."""
    found: dict[str, msgspec.Raw] | list[msgspec.Raw] = _decode_part(stub[6:])
    if isinstance(found, list):
        return None, [bytes(part) for part in found]
    return list(found), [bytes(part) for part in found.values()]


def describe(stub: bytes) -> bytes:
    """What to show of a value that is in the storage, encoded; what is not is shown as it is."""
    return fill(stub, lambda stored: _encode(f"in storage, {stored.size / 1e6:,.1f} MB"))


class DataAccess(Protocol):
    """What loads and stores by reference, for the node that runs now."""

    async def load(self, stored: Stored) -> bytes: ...

    def load_sync(self, stored: Stored) -> bytes: ...

    async def store(self, data: bytes) -> Stored: ...

    def store_sync(self, data: bytes) -> Stored: ...


access: ContextVar[DataAccess] = ContextVar("resolute_data")


class DataRef(Generic[T]):
    """A value in the storage, passed by reference: nodes that only hand it on never load it.

    Made by `current().store(value)` in a node. It lives as long as the run that made it, and those
    that are retries of it.
    """

    __slots__ = ("_type", "path", "sha256", "size")

    def __init__(self, path: str, size: int, sha256: str, type_: Any = Any) -> None:
        self.path = path
        self.size = size
        self.sha256 = sha256
        self._type = type_

    def __repr__(self) -> str:
        return f"DataRef({self.path!r}, {self.size:,} bytes)"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, DataRef) and other.stored == self.stored

    def __hash__(self) -> int:
        return hash(self.stored)

    @property
    def stored(self) -> Stored:
        """Where it is, without its type."""
        return Stored(self.path, self.size, self.sha256)

    @property
    def type(self) -> Any:
        """What it is loaded as: the T of the DataRef[T] that it was declared as, else Any."""
        return self._type

    async def load(self) -> T:
        """The value, from a coroutine function of a node.

        Raises LookupError outside of one (see `Client.load`), StorageUnavailable, ObjectMissing,
        ChecksumMismatch, msgspec.ValidationError where it is no T.
        """
        return self.decode(await _access().load(self.stored))

    def load_sync(self) -> T:
        """The value, from a plain function of a node. Raises what `load` does."""
        return self.decode(_access().load_sync(self.stored))

    def decode(self, data: bytes) -> T:
        """The value from its encoded bytes."""
        from resolute.model.codec import decode  # which knows this class, to put it on the wire

        return cast("T", decode(data, self._type))


def _access() -> DataAccess:
    found = access.get(None)
    if found is None:
        raise LookupError(NO_DATA)
    return found


class _Wire(msgspec.Struct, frozen=True):
    """A DataRef on the wire."""

    path: str
    size: int
    sha256: str


def encode_ref(ref: DataRef[Any]) -> Any:
    return {"path": ref.path, "size": ref.size, "sha256": ref.sha256}


def is_ref(expected: Any) -> bool:
    """Whether a type is DataRef or a DataRef[T]."""
    return (get_origin(expected) or expected) is DataRef


def decode_ref(expected: Any, value: Any) -> DataRef[Any]:
    """A DataRef from its wire form, of the T that is expected. Raises msgspec.ValidationError."""
    wire = msgspec.convert(value, _Wire)
    problem = _problem_of(wire)
    if problem:
        raise msgspec.ValidationError(f"DataRef: {problem}")
    arguments = get_args(expected)
    return DataRef(wire.path, wire.size, wire.sha256, arguments[0] if arguments else Any)


def ref_schema() -> dict[str, Any]:
    return msgspec.json.schema(_Wire)["$defs"]["_Wire"] | {"title": "DataRef"}


def check_path(path: str) -> str:
    """`path` if it is one below a root. Raises ValueError."""
    parts = path.split("/")
    if len(path) > MAX_PATH or "\0" in path or "\\" in path or set(parts) & {"", ".", ".."}:
        raise ValueError(f"expected a path below the storage's root, got {path[:100]!r}")
    return path


def _problem_of(wire: _Wire) -> str:
    try:
        check_path(wire.path)
    except ValueError as error:
        return str(error)
    is_digest = len(wire.sha256) == 64 and set(wire.sha256) <= set("0123456789abcdef")
    if not is_digest:
        return "expected the SHA-256 as 64 lower-case hexadecimal digits"
    return "" if wire.size >= 0 else f"expected a size of 0 or more bytes, got {wire.size}"
