"""What is known of what a user gives, before it is called or counted with."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, get_type_hints
from weakref import WeakKeyDictionary

T = TypeVar("T")


def _once(compute: Callable[[Any], T]) -> Callable[[Any], T]:
    """`compute`, whose answers are kept as long as the function lives that they are of.

    A flow's compiler asks the same of a node several times. What was raised is asked again: a name
    may be there by then.
    """
    known: WeakKeyDictionary[Any, T] = WeakKeyDictionary()

    def read(fn: Any) -> T:
        with suppress(KeyError, TypeError):  # not known; no hash, or no weak references
            return known[fn]
        found = compute(fn)
        with suppress(TypeError):
            known[fn] = found
        return found

    return read


_signature = _once(inspect.signature)
_hints = _once(lambda fn: get_type_hints(fn, include_extras=True))


def positional_parameters(fn: Callable[..., Any]) -> list[str]:
    """The names of the parameters that must be, or can only be, given by position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    try:
        parameters = _signature(fn).parameters.values()
    except (TypeError, ValueError):
        return ["input"]
    taken = [p for p in parameters if p.kind in kinds]
    required = [p.name for p in taken if p.default is inspect.Parameter.empty]
    return required or [p.name for p in taken[:1]]


def hints_of(fn: Callable[..., Any]) -> dict[str, Any]:
    """The types that a function or an object with `__call__` is annotated with."""
    target = fn if inspect.isroutine(fn) else type(fn).__call__
    try:
        return _hints(target)
    except Exception:
        # A name that only exists while type checking: the annotation cannot be used, the node can.
        return {}


def is_coroutine_function(fn: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)


def check_plain(what: str, fn: object, of: str = "") -> None:
    """Raises TypeError unless `fn` is a function that answers when it is called.

    Whoever calls it does not wait: of a coroutine function the answer would be a coroutine, which
    is always true. `of` says what it is a function of.
    """
    expected = f"a function of {of}" if of else "a function"
    if not callable(fn):
        raise TypeError(f"{what}: expected {expected}, got {fn!r}")
    if hasattr(fn, "with_input"):
        raise TypeError(f"{what}: expected {expected}, got a node, {fn!r}: read its output there")
    if is_coroutine_function(fn) or inspect.isasyncgenfunction(fn):
        raise TypeError(
            f"{what}: expected a plain function{f' of {of}' if of else ''}, got a coroutine"
            " function, for which nobody waits: let a node do that work, and read its output"
        )


def check_answer(what: str, answer: object) -> None:
    """Raises TypeError for an answer that somebody would have to wait for."""
    if inspect.isawaitable(answer):
        if inspect.iscoroutine(answer):
            answer.close()
        raise TypeError(f"{what}: expected an answer, got a coroutine, for which nobody waits")


def check_count(what: str, value: object, least: int = 1) -> None:
    """Raises TypeError unless `value` is a whole number, ValueError below `least`."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{what}: expected a whole number, got {value!r}")
    if value < least:
        raise ValueError(f"{what}: expected {least} or more, got {value!r}")


def check_number(what: str, value: object) -> None:
    """Raises TypeError unless `value` is a number, ValueError for one that is endless or none."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError(f"{what}: expected a number, got {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{what}: expected a finite number, got {value!r}")
