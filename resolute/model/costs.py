"""What an attempt of a node cost: entries in whole millionths, so that sums are exact."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import cast

import msgspec

MICRO = Decimal(1_000_000)
MAX_AMOUNT = 1_000_000_000  # of one entry
MAX_ENTRIES = 10_000  # of one attempt
MAX_UNITS = 10  # of one attempt
MAX_LABELS = 20  # of one entry
MAX_LABEL = 200  # characters of a label's name and of its text

_UNIT = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,29}")


class Cost(msgspec.Struct, frozen=True):
    """One entry: `micros` millionths of a `unit`."""

    micros: int
    unit: str
    labels: Mapping[str, str]

    @property
    def amount(self) -> Decimal:
        return amount_of(self.micros)


class Costs:
    """The entries of one attempt, in order."""

    __slots__ = ("_sums", "entries")

    def __init__(self) -> None:
        self.entries: list[Cost] = []
        self._sums: dict[str, int] = {}

    def add(self, cost: Cost) -> None:
        """Raises ValueError where there are too many entries, or units."""
        if len(self.entries) >= MAX_ENTRIES:
            raise ValueError(f"cost: expected at most {MAX_ENTRIES:,} entries of one attempt")
        if cost.unit not in self._sums and len(self._sums) >= MAX_UNITS:
            raise ValueError(f"cost: expected at most {MAX_UNITS} units of one attempt")
        self.entries.append(cost)
        self._sums[cost.unit] = self._sums.get(cost.unit, 0) + cost.micros

    def packed(self) -> str:
        """The sums of the units as a script takes them: ``usd|1200|eur|5``, '' for none."""
        if not self._sums:
            return ""
        return "|".join(f"{unit}|{micros}" for unit, micros in self._sums.items())


def cost_of(amount: Decimal | float | str, unit: str, labels: Mapping[str, object]) -> Cost:
    """An entry, checked. Raises TypeError, ValueError."""
    if not isinstance(cast("object", unit), str) or not _UNIT.fullmatch(unit):
        raise ValueError(
            "cost: expected a unit of 1 to 30 letters, digits, '_', '.' and '-', from a letter"
            f" on, got {unit!r}"
        )
    if len(labels) > MAX_LABELS:
        raise ValueError(f"cost: expected at most {MAX_LABELS} labels, got {len(labels)}")
    found = {name: str(value) for name, value in labels.items()}
    for name, text in found.items():
        if max(len(name), len(text)) > MAX_LABEL:
            raise ValueError(f"cost: label {name[:40]!r}: expected at most {MAX_LABEL} characters")
    return Cost(_micros(amount), unit, found)


def _micros(amount: object) -> int:
    if isinstance(amount, bool) or not isinstance(amount, int | float | str | Decimal):
        raise TypeError(f"cost: expected a number, got {amount!r}")
    try:
        # By its text: 0.1 is then a tenth.
        exact = Decimal(str(amount))
    except InvalidOperation:
        exact = Decimal("NaN")
    if not exact.is_finite() or not 0 <= exact <= MAX_AMOUNT:
        raise ValueError(f"cost: expected an amount from 0 to {MAX_AMOUNT:,}, got {amount!r}")
    return int((exact * MICRO).to_integral_value(ROUND_HALF_EVEN))


def amount_of(micros: int) -> Decimal:
    """A sum as a decimal number, without noughts at its end."""
    whole = Decimal(micros) / MICRO
    return whole.quantize(Decimal(1)) if whole == whole.to_integral_value() else whole.normalize()
