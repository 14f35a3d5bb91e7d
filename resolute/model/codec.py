"""Values on the wire: MessagePack by msgspec, decoded straight to the declared type."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, cast

import msgspec

from resolute.errors import NotEncodable, PayloadTooLarge
from resolute.model.markers import Marker
from resolute.model.references import (
    EXTENSIONS,
    DataRef,
    decode_ref,
    encode_ref,
    is_ref,
    is_stub,
    ref_schema,
)

DEFAULT_MAX_PAYLOAD = 1024 * 1024  # bytes
UNBOUNDED = 1 << 31  # bytes; an input that is made on a worker never leaves the process


def encode_foreign(value: Any) -> Any:
    """References; pydantic models, where pydantic is installed: it is never imported for this."""
    if isinstance(value, Marker):
        raise NotImplementedError(f"{value!r} is a marker: it is for values given to with_input()")
    if isinstance(value, DataRef):
        return encode_ref(cast("DataRef[Any]", value))
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json")
    raise NotImplementedError(f"objects of type {type(value).__name__} are not supported")


def decode_foreign(expected: type[Any], value: Any) -> Any:
    """What `encode_foreign` encoded, as what it was declared."""
    if is_ref(expected):
        return decode_ref(expected, value)
    if expected is object:  # anything
        return value
    validate = getattr(expected, "model_validate", None)
    if callable(validate):
        return validate(value)
    raise NotImplementedError(f"objects of type {expected.__name__} are not supported")


_encoder = msgspec.msgpack.Encoder(enc_hook=encode_foreign)
_encode = _encoder.encode


def encode(
    value: Any,
    *,
    max_payload: int = DEFAULT_MAX_PAYLOAD,
    what: str = "value",
    found: Mapping[Marker, Any] | None = None,
) -> bytes:
    """`value` as MessagePack, with what was `found` for its markers in their places.

    Raises NotEncodable with the path of the part that cannot be encoded (`what` names the root),
    PayloadTooLarge above `max_payload` bytes.
    """
    write = _encode if not found else _encoding(found)
    try:
        data = write(value)
    except Exception as error:
        raise NotEncodable(*_find_culprit(value, what, error, write)) from error
    if len(data) > max_payload:
        raise PayloadTooLarge(len(data), max_payload)
    if data[0] in EXTENSIONS and is_stub(data):
        raise NotEncodable(what, "this MessagePack extension type is Resolute's own")
    return data


@lru_cache(maxsize=4096)
def _decoder(expected: Any) -> Callable[[bytes], Any]:
    return msgspec.msgpack.Decoder(expected, dec_hook=decode_foreign).decode


def decode(data: bytes, expected: Any = Any) -> Any:
    """The value in `data`, checked against `expected`. Raises msgspec.ValidationError."""
    return decoder(expected)(data)


def decoder(expected: Any) -> Callable[[bytes], Any]:
    """A function that decodes to `expected`; made once for each type."""
    try:
        return _decoder(expected)
    except TypeError:  # an unhashable type expression
        return msgspec.msgpack.Decoder(expected, dec_hook=decode_foreign).decode


def schema(expected: Any) -> dict[str, Any]:
    """The JSON schema of a type; ``{}``, which allows all, where it has none."""
    if expected is Any:
        return {}
    try:
        return msgspec.json.schema(expected, schema_hook=_foreign_schema)
    except TypeError:
        return {}


def check_type(what: str, expected: Any) -> None:
    """Raises TypeError for what is no type of values that go over the wire, or has one in it."""
    try:
        decoder(expected)
    except TypeError as error:
        raise TypeError(f"{what}: expected a type, got {expected!r}: {error}") from None
    except Exception:  # a name in it that is not there yet: nothing is known of it now
        return
    foreign: list[str] = []

    def note(part: Any) -> dict[str, Any]:
        has_codec = callable(getattr(part, "model_validate", None))
        if not (part is object or is_ref(part) or has_codec):
            foreign.append(getattr(part, "__name__", repr(part)))
        return {}

    with contextlib.suppress(Exception):  # a type without a schema, which can be decoded
        msgspec.json.schema(expected, schema_hook=note)
    if foreign:
        raise TypeError(f"{what}: values of type {foreign[0]} cannot be encoded")


def _encoding(found: Mapping[Marker, Any]) -> Callable[[Any], bytes]:
    def encode_one(value: Any) -> Any:
        return found[value] if isinstance(value, Marker) else encode_foreign(value)

    return msgspec.msgpack.Encoder(enc_hook=encode_one).encode


def _foreign_schema(expected: Any) -> dict[str, Any]:
    if is_ref(expected):
        return ref_schema()
    raise NotImplementedError


def _find_culprit(
    value: Any, path: str, error: Exception, write: Callable[[Any], bytes], depth: int = 0
) -> tuple[str, str]:
    """The deepest path below `value` that fails to encode, and why."""
    for step, part in _parts(value) if depth < 50 else ():
        try:
            write(part)
        except Exception as inner:
            return _find_culprit(part, path + step, inner, write, depth + 1)
    return path, str(error) or type(error).__name__


def _parts(value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        mapping = cast("Mapping[Any, Any]", value)
        return [(f"[{key!r}]", item) for key, item in mapping.items()]
    if isinstance(value, list | tuple | set | frozenset):
        return [(f"[{i}]", item) for i, item in enumerate(cast("list[Any]", value))]
    kind = cast("type[Any]", type(value))
    names: tuple[str, ...] = getattr(kind, "__struct_fields__", ())
    names = names or tuple(getattr(kind, "__dataclass_fields__", ()))
    return [(f".{name}", getattr(value, name)) for name in names if hasattr(value, name)]
