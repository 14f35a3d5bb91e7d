"""What the headers of an answer say of an API's limits, and what follows for ours."""

from __future__ import annotations

import time
from email.utils import formatdate

import httpx
import pytest

from resolute import FlowBuilder, RetryPolicy, manual
from resolute.http.quota import pause_of
from resolute.testing import FlowTester
from tests.http.conftest import Calls
from tests.support.api import Api, Told


def headers(remaining: str, reset: str, prefix: str = "X-RateLimit", **more: str) -> httpx.Headers:
    return httpx.Headers({f"{prefix}-Remaining": remaining, f"{prefix}-Reset": reset, **more})


@pytest.mark.parametrize("prefix", ["RateLimit", "X-RateLimit", "x-ratelimit"])
@pytest.mark.parametrize(
    ("remaining", "reset", "pause"),
    [
        ("0", "30", 30.0),
        ("0", " 1.5 ", 1.5),
        ("-1", "30", 30.0),
        ("0, 0;w=60", "30, 30;w=60", 30.0),
        ("1", "30", None),
        ("0", "0", None),
        ("0", "-5", None),
        ("0", "90000", None),
        ("0", "nan", None),
        ("0", "inf", None),
        ("0", "soon", None),
        ("", "30", None),
        ("x", "30", None),
    ],
)
def test_a_limit_that_is_used_up_says_for_how_long(
    prefix: str, remaining: str, reset: str, pause: float | None
):
    assert pause_of(headers(remaining, reset, prefix)) == pause


def test_without_such_headers_there_is_no_pause():
    assert pause_of({}) is None
    assert pause_of({"X-RateLimit-Remaining": "0"}) is None


def test_the_longer_of_two_limits_counts():
    found = httpx.Headers({**headers("0", "30"), **headers("0", "10", "RateLimit")})
    assert pause_of(found) == 30.0


def test_a_reset_that_is_a_moment_is_compared_with_the_clock_of_the_api():
    its_now = 1_900_000_000
    date = formatdate(its_now, usegmt=True)
    assert pause_of(headers("0", str(its_now + 40), Date=date)) == 40.0
    assert pause_of(headers("0", str(its_now - 1), Date=date)) is None
    assert pause_of(headers("0", str((its_now + 40) * 1000), Date=date)) is None  # ms: not believed
    ours = pause_of(headers("0", str(time.time() + 40), Date="garbage"))
    assert ours is not None and 30 < ours <= 40


@pytest.mark.parametrize("status", [200, 404])
def test_whatever_the_status_the_limits_of_the_provider_are_paused(
    api: Api, calls: Calls, status: int
):
    api.tell(Told({}, status, headers("0", "600", "RateLimit")), Told({}))
    http = calls.http(rate_limit="100/s", retry=RetryPolicy(max_attempts=1))
    first, second = http.get("first", "/1").best_effort(), http.get("second", "/2")
    flow = FlowBuilder("f").triggered_by(manual()).then(first).then(second.with_input(None)).build()
    tester = FlowTester().with_rate_limiting()
    assert tester.run(flow).output is None
    assert len(api.asked) == 2
    assert tester.now >= 599


def test_without_limits_nothing_waits(api: Api, calls: Calls):
    api.tell(Told({}, 200, headers("0", "600", "RateLimit")))
    one = calls.http().get("one", "/1")
    flow = FlowBuilder("f").triggered_by(manual()).then(one).then(one.as_("two")).build()
    tester = FlowTester().with_rate_limiting()
    tester.run(flow)
    assert tester.now < 1
