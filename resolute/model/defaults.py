"""What stands for an input that is not given: what its type's author said, and nothing made up."""

from __future__ import annotations

from typing import Any, get_origin

import msgspec

from resolute.model import codec
from resolute.model.fitting import plain

NIL, EMPTY = b"\xc0", b"\x80"  # None and {}


def default_of(expected: Any) -> Any:
    """None where that is an `expected`; else one of its fields' defaults.

    Raises TypeError, ValueError for a type that has none: a number that nobody gave is not 0.
    """
    if expected is None or _is(NIL, expected):
        return None
    kind: Any = get_origin(plain(expected)) or plain(expected)
    fields = ("__struct_fields__", "__dataclass_fields__", "_fields")
    if isinstance(kind, type) and any(hasattr(kind, name) for name in fields):
        return kind()
    try:
        return codec.decode(EMPTY, expected)
    except msgspec.ValidationError as error:
        # Of a class with fields it says which one is missing; of a number only that {} is none.
        reason = "it has no default" if "got `object`" in str(error) else str(error)
        raise TypeError(reason) from None


def _is(data: bytes, expected: Any) -> bool:
    try:
        codec.decode(data, expected)
    except msgspec.ValidationError:
        return False
    return True
