"""Costs: whole millionths, checked, and summed without loss."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from resolute.model.costs import MAX_ENTRIES, MAX_UNITS, Costs, amount_of, cost_of


@pytest.mark.parametrize(
    ("amount", "micros"),
    [
        (0, 0),
        (1, 1_000_000),
        (0.1, 100_000),
        ("0.1", 100_000),
        (Decimal("0.000001"), 1),
        (Decimal("0.0000005"), 0),
        (Decimal("0.0000015"), 2),
        ("1e-3", 1_000),
        (1_000_000_000, 10**15),
    ],
)
def test_an_amount_is_kept_in_millionths_rounded_to_even(amount: Any, micros: int):
    assert cost_of(amount, "usd", {}).micros == micros


@pytest.mark.parametrize("amount", [-1, "-0.1", "nan", "inf", "1,5", "", 1_000_000_001, 2.0**60])
def test_what_is_no_amount_is_refused(amount: Any):
    with pytest.raises(ValueError, match="expected an amount from 0 to"):
        cost_of(amount, "usd", {})


@pytest.mark.parametrize("amount", [None, True, [1], b"1"])
def test_what_is_no_number_is_a_type_error(amount: Any):
    with pytest.raises(TypeError, match="expected a number"):
        cost_of(amount, "usd", {})


@pytest.mark.parametrize("unit", ["", "1a", "a|b", "a b", "x" * 31, "usd\n", None])
def test_a_unit_that_would_not_be_one_field_is_refused(unit: Any):
    with pytest.raises(ValueError, match="expected a unit"):
        cost_of(1, unit, {})


def test_labels_are_text_and_bounded():
    assert cost_of(1, "usd", {"model": "large", "tries": 2}).labels == {
        "model": "large",
        "tries": "2",
    }
    with pytest.raises(ValueError, match="at most 200 characters"):
        cost_of(1, "usd", {"model": "x" * 201})
    with pytest.raises(ValueError, match="at most 20 labels"):
        cost_of(1, "usd", {f"l{i}": 1 for i in range(21)})


def test_the_sums_of_an_attempt_are_packed_by_unit():
    costs = Costs()
    assert costs.packed() == ""
    for amount, unit in ((0.1, "usd"), (2, "eur"), (0.2, "usd")):
        costs.add(cost_of(amount, unit, {}))
    assert costs.packed() == "usd|300000|eur|2000000"
    assert [cost.amount for cost in costs.entries] == [Decimal("0.1"), Decimal(2), Decimal("0.2")]


def test_an_attempt_has_so_many_units_and_entries():
    costs = Costs()
    for number in range(MAX_UNITS):
        costs.add(cost_of(1, f"u{number}", {}))
    with pytest.raises(ValueError, match=f"at most {MAX_UNITS} units"):
        costs.add(cost_of(1, "more", {}))
    for _ in range(MAX_ENTRIES - MAX_UNITS):
        costs.add(cost_of(1, "u0", {}))
    with pytest.raises(ValueError, match="at most 10,000 entries"):
        costs.add(cost_of(1, "u0", {}))


def test_a_sum_is_an_exact_number_without_noughts_at_its_end():
    assert [str(amount_of(n)) for n in (0, 1_000_000_000, 1_500_000, 9_007_199_254_740_993)] == [
        "0",
        "1000",
        "1.5",
        "9007199254.740993",
    ]
