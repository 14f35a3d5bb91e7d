"""Starts that share a key: one open run of it at a time, or one run for many starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from resolute.durations import Duration, milliseconds
from resolute.errors import InvalidInput
from resolute.model.markers import Marker, MarkerKind
from resolute.model.paths import value_at
from resolute.model.plan import StartPlan

IfRunning = Literal["existing", "fail", "replace"]
Overlap = Literal["allow", "skip", "replace"]

IF_RUNNING: tuple[str, ...] = get_args(IfRunning)
OVERLAPS: tuple[str, ...] = get_args(Overlap)
MAX_KEY = 200  # characters


@dataclass(frozen=True)
class Unique:
    """No two open runs of a flow with the same key.

    `key` is a text of 1 to 200 characters, or ``input_data("order.id")``: that part of the input.
    While a run with the key is open, a further start gets that run ("existing"), raises
    AlreadyRunning ("fail"), or cancels it and begins when it has ended ("replace").

    With a `period` (seconds, or a text such as "1h") the key is taken for so long after the start,
    too, also when that run has ended. Raises ValueError.
    """

    key: Any
    if_running: IfRunning = "existing"
    period: Duration | None = None

    def __post_init__(self) -> None:
        _check("unique", self.key)
        if self.if_running not in IF_RUNNING:
            raise ValueError(
                f"unique: expected if_running {_or(IF_RUNNING)}, got {self.if_running!r}"
            )
        if self.period is not None and self.period_ms <= 0:
            raise ValueError(f"unique: expected a period above 0, got {self.period!r}")
        if self.period is not None and self.if_running == "replace":
            raise ValueError(
                'unique: a run that has ended is not replaced: no period with "replace"'
            )

    @property
    def period_ms(self) -> int:
        return 0 if self.period is None else milliseconds(self.period)


@dataclass(frozen=True)
class Debounce:
    """Starts with the same key become one run, which begins when it was quiet for `wait`.

    It has the input of the last one, and begins `max_wait` after the first one at the latest
    (None: as long as they keep coming). Both are seconds, or a text such as "5s". `key` is as that
    of `Unique`. Raises ValueError.
    """

    key: Any
    wait: Duration
    max_wait: Duration | None = None

    def __post_init__(self) -> None:
        _check("debounce", self.key)
        if self.wait_ms <= 0:
            raise ValueError(f"debounce: expected a wait above 0, got {self.wait!r}")
        if self.max_wait is not None and self.most_ms < self.wait_ms:
            raise ValueError(
                f"debounce: expected a max_wait of {self.wait!r} or more, got {self.max_wait!r}"
            )

    @property
    def wait_ms(self) -> int:
        return milliseconds(self.wait)

    @property
    def most_ms(self) -> int:
        """0: as long as they keep coming."""
        return 0 if self.max_wait is None else milliseconds(self.max_wait)


def as_unique(unique: Unique | str) -> Unique:
    """A key stands for what `Unique` does with it by default. Raises ValueError."""
    return unique if isinstance(unique, Unique) else Unique(unique)


def key_of(flow: str, key: Any, value: Any) -> str:
    """The key of a start of `flow` with this input. Raises InvalidInput where that has none."""
    if not isinstance(key, Marker):
        return cast("str", key)
    try:
        found = value_at(value, steps_to(key))
    except LookupError as error:
        raise InvalidInput(flow, f"the key {key!r}: it {error}") from None
    if isinstance(found, bool) or not isinstance(found, str | int):
        kind = type(found).__name__
        raise InvalidInput(flow, f"the key {key!r}: expected a text or a number, got {kind}")
    try:
        return check_key(str(found))
    except ValueError as error:
        raise InvalidInput(flow, f"the key {key!r}: {error}") from None


def steps_to(key: Any) -> Sequence[str]:
    """Where in the input a key is; nowhere to go for a text."""
    return key.path.split(".") if isinstance(key, Marker) and key.path else ()


def check_key(key: str) -> str:
    """`key` if it can be one. Raises ValueError."""
    if not 1 <= len(key) <= MAX_KEY:
        raise ValueError(f"key: expected 1 to {MAX_KEY} characters, got {len(key)}")
    try:
        key.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"key: expected text that UTF-8 can say: {error}") from None
    return key


def as_plan(trigger: str, claim: Unique | Debounce) -> StartPlan:
    """What the plan says of the starts by a trigger."""
    key: Any = claim.key
    path = key.path if isinstance(key, Marker) else None
    text = "" if path is not None else cast("str", key)
    if isinstance(claim, Unique):
        return StartPlan(trigger, text, path, claim.if_running, claim.period_ms)
    return StartPlan(trigger, text, path, wait_ms=claim.wait_ms, most_ms=claim.most_ms)


def of_plan(plan: StartPlan) -> Unique | Debounce:
    """What `as_plan` was given."""
    key: Any = plan.key if plan.path is None else Marker(MarkerKind.INPUT, plan.path)
    if plan.wait_ms:
        return Debounce(key, plan.wait_ms / 1000, plan.most_ms / 1000 if plan.most_ms else None)
    period = plan.period_ms / 1000 if plan.period_ms else None
    return Unique(key, if_running_of(plan), period)


def if_running_of(plan: StartPlan) -> IfRunning:
    """What becomes of the run that has the key. Raises ValueError for a later release's plan."""
    if plan.if_running not in IF_RUNNING:
        raise ValueError(
            f"trigger {plan.trigger!r}: expected {_or(IF_RUNNING)}, got {plan.if_running!r}"
        )
    return cast("IfRunning", plan.if_running)


def _check(what: str, key: Any) -> None:
    if isinstance(key, Marker):
        if key.kind is not MarkerKind.INPUT:
            raise ValueError(f"{what}: expected a text or input_data(...) as its key, got {key!r}")
        return
    if not isinstance(key, str):
        raise ValueError(f"{what}: expected a text or input_data(...) as its key, got {key!r}")
    check_key(key)


def _or(words: tuple[str, ...]) -> str:
    return ", ".join(f'"{word}"' for word in words[:-1]) + f' or "{words[-1]}"'
