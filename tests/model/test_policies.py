from __future__ import annotations

from typing import Any

import pytest

from resolute.model.node_plans import limit_plan, retry_plan
from resolute.model.policies import (
    ConcurrencyLimit,
    RateLimit,
    RetryPolicy,
    SharedRateLimit,
    as_limits,
)
from tests.support.flows import step


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("50/1m", RateLimit(50, "1m")),
        ("1000/1h", RateLimit(1000, "1h")),
        ("10/s", RateLimit(10, "1s")),
        (" 3 / 500ms ", RateLimit(3, "500ms")),
    ],
)
def test_a_rate_is_read_as_people_write_it(text: str, limit: RateLimit):
    assert RateLimit.parse(text) == limit


@pytest.mark.parametrize("text", ["", "50", "fast", "0/1m", "-1/1m", "5/0s", "5/1x", "1.5/1m"])
def test_what_is_no_rate_is_refused(text: str):
    with pytest.raises(ValueError, match="expected"):
        RateLimit.parse(text)


@pytest.mark.parametrize(
    "options",
    [{"n": 0}, {"n": 5, "per": 0}, {"n": 5, "burst": 0}, {"n": 5, "burst": 6, "strict": True}],
    ids=str,
)
def test_a_senseless_limit_is_refused(options: dict[str, Any]):
    with pytest.raises(ValueError, match="expected"):
        RateLimit(**options)
    with pytest.raises(ValueError, match="expected"):
        SharedRateLimit("shared", **options)


def test_a_shared_limit_has_a_name_that_can_be_a_key():
    with pytest.raises(ValueError, match="shared rate limit: expected"):
        SharedRateLimit("a{b", 1)


def test_limits_are_given_as_text_one_or_several():
    one, other = RateLimit(1), SharedRateLimit("api", 2)
    assert as_limits(None) == ()
    assert as_limits("5/s") == (RateLimit(5, "1s"),)
    assert as_limits(one) == (one,)
    assert as_limits((one, other)) == (one, other)


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"backoff_coefficient": 0.5},
        {"jitter": -0.1},
        {"jitter": 1.1},
        {"initial_interval": "soon"},
        {"maximum_interval": -1},
    ],
    ids=str,
)
def test_a_senseless_retry_policy_is_refused_with_what_was_expected(options: dict[str, Any]):
    with pytest.raises(ValueError, match="expected"):
        RetryPolicy(**options)


def test_a_retry_policy_goes_into_the_plan_in_milliseconds_and_names():
    policy = RetryPolicy("2s", 3.0, "1h", 7, 0.5, (ValueError, OSError))
    plan = retry_plan(policy)
    assert (plan.initial_ms, plan.coefficient, plan.maximum_ms) == (2_000, 3.0, 3_600_000)
    assert (plan.max_attempts, plan.jitter) == (7, 0.5)
    assert plan.non_retryable == ("ValueError", "OSError")


def test_the_default_retry_policy_is_that_of_the_documentation():
    plan = retry_plan(RetryPolicy())
    assert (plan.initial_ms, plan.coefficient, plan.maximum_ms) == (1_000, 2.0, 60_000)
    assert (plan.max_attempts, plan.jitter, plan.non_retryable) == (3, 0.1, ())


def test_what_splits_a_bucket_is_no_part_of_the_limit_but_of_the_plan():
    def tenant(value: Any) -> str:
        return str(value)

    assert RateLimit(5, key=tenant) == RateLimit(5)
    assert limit_plan("f", "n", RateLimit(5, key=tenant)).keyed
    assert not limit_plan("f", "n", RateLimit(5)).keyed


# From a policy to a bucket.


@pytest.mark.parametrize(
    ("rate", "interval_us", "burst"),
    [
        (RateLimit(50, "1m"), 1_200_000, 50),
        (RateLimit(50, "1m", burst=10), 1_200_000, 10),
        (RateLimit(100, "1s", strict=True), 11_111, 2),
        (RateLimit(5, "1s", strict=True), 220_000, 1),
    ],
)
def test_a_rate_becomes_a_bucket(rate: RateLimit, interval_us: int, burst: int):
    plan = limit_plan("flow", "node", rate)
    assert (plan.interval_us, plan.burst, plan.bucket) == (interval_us, burst, "node:flow/node")


def test_a_shared_limit_is_one_bucket_for_all_that_name_it():
    shared = SharedRateLimit("api", 10, "1s")
    plans = {limit_plan(flow, node, shared) for flow in "ab" for node in "cd"}
    assert {plan.bucket for plan in plans} == {"shared:api"}
    assert len(plans) == 1


def test_a_rate_above_a_million_a_second_has_an_interval_all_the_same():
    assert limit_plan("f", "n", RateLimit(10_000_000, "1s")).interval_us == 1


def test_a_shared_limit_keeps_all_that_a_limit_has():
    shared = SharedRateLimit("api", 5, "2s", burst=2, strict=True, key=str)
    rate = shared.rate()
    assert rate == RateLimit(5, "2s", burst=2, strict=True)
    assert rate.key is str
    assert limit_plan("f", "n", shared).keyed


def test_a_first_pause_longer_than_the_longest_is_refused():
    """Else "1h" would silently be the minute that is the default of the longest."""
    with pytest.raises(ValueError, match="at least the initial_interval '1h', got '1m'"):
        RetryPolicy(initial_interval="1h")
    assert RetryPolicy(initial_interval="1h", maximum_interval="1h").maximum_interval == "1h"


@pytest.mark.parametrize("n", [0, -1, 10_001, 1.5, True, "5"])
def test_a_number_of_executions_that_cannot_be_is_refused(n: Any):
    with pytest.raises(ValueError, match="'tenant': expected 1 to 10,000 executions, got"):
        ConcurrencyLimit("tenant", n)


def test_a_concurrency_limit_has_a_name():
    with pytest.raises(ValueError, match="concurrency limit: expected"):
        ConcurrencyLimit("a b", 5)


def test_what_is_no_concurrency_limit_is_refused_by_the_node():
    several: Any = 5
    with pytest.raises(TypeError, match=r"expected ConcurrencyLimit\(name, n\), got 5"):
        step("a", concurrency=several)
    twice = (ConcurrencyLimit("a", 1), ConcurrencyLimit("a", 2))
    with pytest.raises(ValueError, match="one limit is there twice, got"):
        step("a", concurrency=twice)
