"""Whether the output of one node can be the input of the next, as far as annotations tell.

Conservative: only what clearly cannot fit is refused; the rest is checked when it is decoded.
"""

from __future__ import annotations

import types
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin, is_typeddict

_SCALARS = (str, bytes, bool, int, float)
_LISTS = (list, tuple, set, frozenset)


def fits(produced: Any, taken: Any) -> bool:
    """False only where a value of `produced` can never be a `taken`."""
    produced, taken = plain(produced), plain(taken)
    if produced == taken or is_open(produced) or is_open(taken):
        return True
    if is_union(produced):
        return any(fits(part, taken) for part in get_args(produced))
    if is_union(taken):
        return any(fits(produced, part) for part in get_args(taken))
    return _classes_fit(_class_of(produced), _class_of(taken))


def type_name(annotation: Any) -> str:
    """The annotation as a person would write it."""
    name = getattr(annotation, "__name__", None)
    return name if isinstance(name, str) and not get_args(annotation) else str(annotation)


def _classes_fit(produced: type[Any] | None, taken: type[Any] | None) -> bool:
    if produced is None or taken is None:
        return True
    if issubclass(produced, taken) or issubclass(taken, produced):
        return True
    if produced is int and taken is float:
        return True
    if produced in _LISTS and taken in _LISTS:
        return True
    # A dict is what Structs, dataclasses and TypedDicts look like on the wire.
    if dict in (produced, taken):
        other = taken if produced is dict else produced
        return other not in (*_SCALARS, *_LISTS, type(None))
    # Scalars can stand for richer types on the wire: a datetime, a UUID, an Enum.
    if produced in _SCALARS and taken not in (*_SCALARS, *_LISTS, type(None)):
        return not hasattr(taken, "__struct_fields__") and not hasattr(
            taken, "__dataclass_fields__"
        )
    return False


def plain(annotation: Any) -> Any:
    """Without what Annotated adds; None as its type."""
    if annotation is None:
        return type(None)
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    return annotation


def is_open(annotation: Any) -> bool:
    """Whether it says nothing of the value."""
    return annotation is Any or annotation is object or isinstance(annotation, TypeVar)


def is_union(annotation: Any) -> bool:
    """``A | B``, or an Optional."""
    return get_origin(annotation) in (Union, types.UnionType)


def _class_of(annotation: Any) -> type[Any] | None:
    found = get_origin(annotation) or annotation
    if is_typeddict(found):
        return dict
    return cast("type[Any]", found) if isinstance(found, type) else None
