"""The services' client: what a node raises for each refusal, and that the limits fit together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httpx
import pytest

from examples.enrich_issues.client import CONNECTIONS, Services
from examples.enrich_issues.flows import CHAT_LIMIT, PULLS_LIMIT, TRACKER_LIMIT
from examples.enrich_issues.services import ALLOWED
from examples.enrich_issues.wire import IssueSummary, Mentions
from resolute import RateLimit, RetryAfter, SharedRateLimit, TerminalError

Answer = Callable[[httpx.Request], httpx.Response]


def services(answer: Answer) -> Services:
    transport = httpx.MockTransport(answer)
    return Services(httpx.AsyncClient(transport=transport, base_url="http://test"))


def ask(answer: Answer) -> IssueSummary:
    return asyncio.run(services(answer).issue_summary(7))


def test_an_answer_is_decoded() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert request.url.path == "/tracker/issues/7/summary"
        return httpx.Response(
            200, json={"number": 7, "title": "It hangs", "createdAt": "2026-03-01T09:00:00Z"}
        )

    assert ask(answer).title == "It hangs"


def test_a_batch_names_its_issues() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        assert (request.method, request.url.path) == ("POST", "/pulls/issues/batch")
        assert request.content == b'{"numbers":[7,8]}'
        return httpx.Response(200, json={"items": [{"number": 7, "pulls": []}]})

    assert asyncio.run(services(answer).all_mentions([7, 8])) == (Mentions(7, ()),)


def test_too_many_requests_say_when_to_come_back() -> None:
    with pytest.raises(RetryAfter) as refusal:
        ask(lambda _: httpx.Response(429, headers={"Retry-After": "3"}))
    assert refusal.value.seconds == 3


def test_an_unknown_issue_is_not_asked_for_again() -> None:
    with pytest.raises(TerminalError, match="404 there is no issue 7"):
        ask(lambda _: httpx.Response(404, text="there is no issue 7"))


def test_an_unavailable_service_is_left_to_the_retry_policy() -> None:
    with pytest.raises(httpx.HTTPStatusError):
        ask(lambda _: httpx.Response(503))


def test_a_process_makes_a_bounded_number_of_calls_at_once() -> None:
    at_once = most_at_once = 0

    async def answer(_: httpx.Request) -> httpx.Response:
        nonlocal at_once, most_at_once
        at_once += 1
        most_at_once = max(most_at_once, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return httpx.Response(200, json={"number": 7, "pulls": []})

    async def ask_often() -> None:
        asked = Services(
            httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://test")
        )
        await asyncio.gather(*(asked.mentions(7) for _ in range(5 * CONNECTIONS)))

    asyncio.run(ask_often())
    assert most_at_once == CONNECTIONS


@pytest.mark.parametrize(
    ("service", "limit"),
    [("tracker", TRACKER_LIMIT), ("chat", CHAT_LIMIT), ("pulls", PULLS_LIMIT)],
)
def test_the_nodes_stay_below_what_the_service_allows_in_any_window(
    service: str, limit: RateLimit | SharedRateLimit
) -> None:
    allowed = ALLOWED[service]
    assert limit.per == "1s"
    assert limit.burst is not None
    # Starts in w seconds: burst + n × (w + 0.1). At w = 0 as well as in the long run it is less
    # than the service's burst + per_second × w, with room for calls that were held up by 0.2 s.
    assert limit.n < allowed.per_second
    assert limit.burst + limit.n * 0.3 <= allowed.burst
