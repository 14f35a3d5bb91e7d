"""What an error means: verdicts, and those of the classifier for HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from resolute import Classifier, RetryAfter, RetryPolicy, TerminalError, http_classifier
from resolute.engine.bound import Bound
from resolute.engine.judging import Judgement, judge
from resolute.model.classifying import retry_after
from resolute.model.nodes import AsyncNode
from tests.support.flows import chain_of

REQUEST = httpx.Request("GET", "http://localhost/")


def answered(status: int, **headers: str) -> httpx.HTTPStatusError:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx.Response(status, headers=names, request=REQUEST)
    return httpx.HTTPStatusError("refused", request=REQUEST, response=response)


async def echo(value: Any) -> Any:
    return value


def says(verdict: Any) -> Classifier:
    return lambda _: verdict


def bound(**options: Any) -> Bound:
    return Bound.of(chain_of(AsyncNode("call", echo, **options)), 0, 0)


def test_answers_that_may_be_others_next_time_are_tried_again():
    for status in (408, 425, 429, 500, 502, 503, 504):
        assert http_classifier(answered(status)) == "retry"
    for status in (400, 401, 403, 404, 409, 422, 501, 505):
        assert http_classifier(answered(status)) == "terminal"


def test_where_no_answer_came_it_is_tried_again():
    assert http_classifier(httpx.ConnectError("refused", request=REQUEST)) == "retry"
    assert http_classifier(httpx.ReadTimeout("slow", request=REQUEST)) == "retry"
    assert http_classifier(ValueError("x")) is None
    assert http_classifier(httpx.InvalidURL("x")) is None


def test_a_retry_after_is_seconds_or_a_date():
    verdict = http_classifier(answered(429, retry_after="7"))
    assert isinstance(verdict, RetryAfter)
    assert verdict.seconds == 7
    assert http_classifier(answered(404, retry_after="7")) == "terminal"
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
    found = retry_after({"retry-after": date})
    assert found is not None
    assert 60 < found <= 90
    past = format_datetime(datetime(2020, 1, 1, tzinfo=UTC), usegmt=True)
    assert retry_after({"Retry-After": past}) == 0
    for wrong in ("", "soon", "nan"):
        assert retry_after({"Retry-After": wrong}) is None
    assert retry_after({"Retry-After": "inf"}) == 30 * 86_400


def test_a_verdict_stands_above_the_policy_but_not_above_its_number_of_attempts():
    policy = RetryPolicy(initial_interval="1s", jitter=0, max_attempts=3)
    final = TerminalError("x")
    assert judge(bound(retry=policy), 1, final) == Judgement(None)
    again = bound(retry=policy, classify=says("retry"))
    assert [judge(again, attempt, final).delay for attempt in (1, 2, 3)] == [1000, 2000, None]
    later = bound(retry=policy, classify=says(RetryAfter(9)))
    assert [judge(later, attempt, final).delay for attempt in (1, 3)] == [9000, None]
    undecided = bound(retry=policy, classify=says(None))
    assert judge(undecided, 1, ValueError()) == Judgement(1000)
    assert judge(bound(classify=says("terminal")), 1, ValueError()) == Judgement(None)
    assert judge(bound(classify=says("fatal")), 1, ValueError()) == Judgement(None, is_fatal=True)


def test_a_pause_for_the_limits_is_told_by_the_error_or_by_the_classifier():
    assert judge(bound(), 1, RetryAfter(9)) == Judgement(9000, pause=9)
    assert judge(bound(classify=says(RetryAfter(9))), 1, ValueError()) == Judgement(9000, pause=9)
    assert judge(bound(classify=says(RetryAfter(9))), 3, ValueError()) == Judgement(None, pause=9)
    assert judge(bound(), 1, ValueError()).pause is None


def test_what_is_no_verdict_is_an_error_that_says_so():
    with pytest.raises(TypeError, match="expected a verdict, got 'perhaps'"):
        judge(bound(classify=says("perhaps")), 1, ValueError())
