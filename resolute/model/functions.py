"""What is known of what a user gives, before it is called or counted with."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any


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
