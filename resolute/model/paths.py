"""Paths into values and types: fields, keys and indices, in one text with dots.

An index below 0 counts from the end: ``-1`` is the last item.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import (
    Any,
    NotRequired,
    Required,
    cast,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from resolute.model.fitting import is_open, is_union, plain, type_name


class NoItems(LookupError):
    """An item of a list was asked for that has none at all."""


def value_at(value: Any, steps: Iterable[str]) -> Any:
    """The part of `value` there. Raises LookupError saying what is there instead."""
    for step in steps:
        value = _part(value, step)
    return value


def type_at(annotation: Any, steps: Iterable[str]) -> Any:
    """The type of that part of an `annotation`, Any where it does not tell.

    Raises LookupError where there can be none.
    """
    for step in steps:
        annotation = _part_type(plain(annotation), step)
    return annotation


def field_types(kind: Any) -> dict[str, Any]:
    """The fields of a Struct, dataclass, TypedDict, NamedTuple or pydantic model, with types."""
    if not isinstance(kind, type):
        return {}
    names = _names(kind)
    if not names:
        return {}
    try:
        hints = get_type_hints(kind, include_extras=True)
    except Exception:  # a name that only exists while type checking
        hints = {}
    return {name: _bare(hints.get(name, Any)) for name in names}


def _bare(hint: Any) -> Any:
    """Without the NotRequired of a TypedDict."""
    return get_args(hint)[0] if get_origin(hint) in (Required, NotRequired) else hint


def _names(kind: type[Any]) -> tuple[str, ...]:
    if is_typeddict(kind):
        return tuple(kind.__annotations__)
    for attribute in ("__struct_fields__", "__dataclass_fields__", "__pydantic_fields__"):
        found = getattr(kind, attribute, None)
        if found:
            return tuple(found)
    fields: tuple[str, ...] = getattr(cast("Any", kind), "_fields", ())
    return fields if issubclass(kind, tuple) else ()


def _part(value: Any, step: str) -> Any:
    names = _names(cast("type[Any]", type(value)))
    if step in names:
        return getattr(value, step)
    if isinstance(value, Mapping):
        mapping = cast("Mapping[Any, Any]", value)
        for key in (step, int(step) if _is_index(step) else step):
            if key in mapping:
                return mapping[key]
        raise LookupError(f"has no {step!r}; it has {_listed(mapping)}")
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        sequence = cast("Sequence[Any]", value)
        if _is_index(step) and -len(sequence) <= int(step) < len(sequence):
            return sequence[int(step)]
        error = LookupError if sequence or not _is_index(step) else NoItems
        raise error(f"has no {step!r}; it has {len(sequence)} items")
    if names:
        raise LookupError(f"has no {step!r}; it has {_listed(names)}")
    raise LookupError(f"is {type(value).__name__}, which has no {step!r}")


def _part_type(annotation: Any, step: str) -> Any:
    if is_open(annotation):
        return Any
    if is_union(annotation):
        return _part_of_some(get_args(annotation), step)
    kind: Any = get_origin(annotation) or annotation
    fields = field_types(kind)
    if step in fields:
        return fields[step]
    if fields and not (issubclass(kind, tuple) and _is_index(step)):
        raise LookupError(
            f"is {type_name(annotation)}, which has no {step!r} but {_listed(fields)}"
        )
    if not isinstance(kind, type):
        return Any
    if issubclass(kind, str | bytes | bool | int | float | type(None)):
        raise LookupError(f"is {type_name(annotation)}, which has no {step!r}")
    arguments = get_args(annotation)
    if issubclass(kind, Mapping):
        return arguments[1] if len(arguments) == 2 else Any
    if issubclass(kind, Sequence):
        return _item_type(annotation, kind, arguments, step)
    return Any


def _item_type(annotation: Any, kind: Any, arguments: tuple[Any, ...], step: str) -> Any:
    if not _is_index(step):
        raise LookupError(f"is {type_name(annotation)}, which has no {step!r} but indices")
    if not issubclass(kind, tuple) or arguments[1:] == (...,):
        return arguments[0] if arguments else Any
    if arguments and not -len(arguments) <= int(step) < len(arguments):
        raise LookupError(f"is {type_name(annotation)}, which has no {step!r}")
    return arguments[int(step)] if arguments else Any


def _part_of_some(kinds: Iterable[Any], step: str) -> Any:
    """That of the only member of a union that has it; Any where several do."""
    found: list[Any] = []
    problem = LookupError("is None")
    for kind in kinds:
        if plain(kind) is type(None):
            continue
        try:
            found.append(_part_type(plain(kind), step))
        except LookupError as error:
            problem = error
    if not found:
        raise problem
    return found[0] if len(found) == 1 else Any


def _is_index(step: str) -> bool:
    return step.isascii() and step.removeprefix("-").isdigit()


def _listed(names: Iterable[Any], most: int = 20) -> str:
    texts = [str(name) for name in names]
    more = ["…"] if len(texts) > most else []
    return ", ".join([*texts[:most], *more]) or "nothing"
