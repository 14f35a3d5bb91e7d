"""What is tried again, what is not, what errors say, and what nobody ever sees."""

from __future__ import annotations

import asyncio
import logging
import socket
from email.utils import formatdate
from time import time

import msgspec
import pytest

from resolute import FlowBuilder, RetryAfter, RetryPolicy, current, manual
from resolute.http import HttpStatusError, env, http_api_classifier
from resolute.http.errors import Answer, Target
from resolute.testing import FlowTester
from tests.http.conftest import Calls
from tests.support.api import Api, Asked, Told

SECRET = "s3cret-t0ken"
HIDDEN = {"Authorization": env("API_TOKEN", "Bearer {}")}


class Box(msgspec.Struct):
    value: str


@pytest.fixture(autouse=True)
def _(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("API_TOKEN", f"{SECRET}\n")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again(api: Api, calls: Calls, status: int):
    api.tell(Told(status=status), Told(5))
    assert calls.output(calls.http(retry=None).get("a", "/", returns=int)) == 5
    assert len(api.asked) == 2


@pytest.mark.parametrize("status", [304, 400, 401, 403, 404, 409, 422, 501])
def test_what_another_attempt_cannot_mend_is_not_tried_again(api: Api, calls: Calls, status: int):
    api.tell(Told(status=status))
    error = calls.error(calls.http(retry=None).get("a", "/", returns=int))
    assert (error.type, len(api.asked)) == ("HttpStatusError", 1)
    assert f"status {status}" in error.message


@pytest.mark.parametrize("kind", ["seconds", "date"])
def test_a_retry_comes_no_sooner_than_the_api_asked_for(api: Api, calls: Calls, kind: str):
    asked = "600" if kind == "seconds" else formatdate(time() + 600, usegmt=True)
    api.tell(Told(status=503, headers={"Retry-After": asked}), Told(5))
    node = calls.http(retry=RetryPolicy(max_attempts=2)).get("a", "/", returns=int)
    flow = FlowBuilder("f").triggered_by(manual()).then(node).build()
    tester = FlowTester()
    assert tester.run(flow).output == 5
    assert 590 < tester.now < 610


def refusal(status: int, **headers: str) -> HttpStatusError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpStatusError(Target("GET", "h", "/"), Answer(status, named, b""), "")


def test_a_403_that_is_one_for_asking_too_often_is_tried_again_when_it_says():
    used_up = {"X_RateLimit_Remaining": "0", "X_RateLimit_Reset": "60"}
    for error in (refusal(403, **used_up), refusal(429, **used_up), refusal(403, Retry_After="60")):
        verdict = http_api_classifier(error)
        assert isinstance(verdict, RetryAfter) and verdict.seconds == 60
    assert http_api_classifier(refusal(403)) == "terminal"
    assert http_api_classifier(refusal(429)) == "retry"
    assert http_api_classifier(refusal(404, **used_up)) == "terminal"


def test_an_error_says_what_was_called_and_what_came_but_not_the_query(api: Api, calls: Calls):
    api.tell(Told({"message": "no such\nthing" + "!" * 1000}, status=404))
    error = calls.error(calls.http().get("a", "/x/{value}", input=Box), Box("a b"))
    host = api.url.removeprefix("http://")
    assert error.message.startswith(
        f'GET {host}/x/a%20b: status 404: {{"message":"no such\\nthing!'
    )
    assert error.message.endswith("!…") and len(error.message) < 300
    error = calls.error(calls.http(params={"key": "v1"}).get("a", "/x", input=Box), Box("v2"))
    assert api.last.query == [("key", "v1"), ("value", "v2")]
    assert "v1" not in str(error) + error.traceback and "v2" not in str(error) + error.traceback


def test_secrets_are_read_on_the_worker_and_seen_nowhere(
    api: Api, calls: Calls, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    caplog.set_level(logging.DEBUG)
    http = calls.http(headers=HIDDEN, params={"key": env("API_TOKEN")})

    def echo(asked: Asked) -> Told:
        header = asked.headers["authorization"]
        return Told(f"you sent {header}".encode(), status=400)

    api.answer = echo
    node = http.get("a", "/", returns=str)
    flow = FlowBuilder("f").triggered_by(manual()).then(node).build()
    result = FlowTester().run(flow)
    assert api.last.headers["authorization"] == f"Bearer {SECRET}"
    assert api.last.query == [("key", SECRET)]
    assert result.error is not None and "you sent Bearer ***" in result.error.message
    everything = [str(result.error), result.error.traceback, repr(http.provider()), caplog.text]
    everything += [repr(result.fields), repr(flow.plan), repr(flow.plan.encode())]
    assert not [text for text in everything if SECRET in text]
    monkeypatch.setenv("API_TOKEN", "another")
    FlowTester().run(flow)
    assert api.last.headers["authorization"] == "Bearer another"


def test_the_logs_of_other_uses_of_httpx_stay(api: Api, caplog: pytest.LogCaptureFixture):
    import httpx

    caplog.set_level(logging.INFO)
    with httpx.Client(trust_env=False) as client:
        client.get(f"{api.url}/mine")
    assert "/mine" in caplog.text


@pytest.mark.parametrize("value", [None, " ", "a\x00b".replace("\x00", "\x01"), "ü"])
def test_a_variable_that_is_not_there_or_no_header_is_named(
    calls: Calls, monkeypatch: pytest.MonkeyPatch, value: str | None
):
    monkeypatch.delenv("API_TOKEN")
    if value is not None:
        monkeypatch.setenv("API_TOKEN", value)
    error = calls.error(calls.http(headers=HIDDEN).get("a", "/"))
    assert error.type == "ConfigurationError" and "the variable API_TOKEN" in error.message


def test_what_cannot_be_meant_by_env_is_refused():
    with pytest.raises(ValueError, match="expected a template with"):
        env("TOKEN", "Bearer")
    with pytest.raises(ValueError, match="expected the name of a variable"):
        env("")
    assert SECRET not in repr(env("API_TOKEN"))


@pytest.mark.parametrize("bad", ["a\r\nX-Evil: 1", "ü"])
def test_a_header_that_is_none_is_refused_when_the_api_is_made(calls: Calls, bad: str):
    with pytest.raises(ValueError, match="header 'X-A': expected printable ASCII"):
        calls.http(headers={"X-A": bad})


def test_the_base_url_can_come_from_the_environment(
    api: Api, calls: Calls, monkeypatch: pytest.MonkeyPatch
):
    http = calls.http(base_url=env("API_URL"))
    node = http.get("a", "/x")
    monkeypatch.setenv("API_URL", api.url)
    calls.output(node)
    assert api.last.path == "/x"
    monkeypatch.setenv("API_URL", f"http://u:{SECRET}@localhost")
    error = calls.error(node)
    assert "base_url: expected no user" in error.message and SECRET not in str(error)


# Redirects.


def test_a_redirect_on_the_same_host_is_followed_with_the_credentials(api: Api, calls: Calls):
    api.tell(Told(status=307, headers={"Location": "/there?x=1"}), Told(5))
    node = calls.http(headers=HIDDEN).post("a", "/here", input=Box, returns=int)
    assert calls.output(node, Box("v")) == 5
    assert (api.last.path, api.last.query, api.last.json) == (
        "/there",
        [("x", "1")],
        {"value": "v"},
    )
    assert api.last.headers["authorization"] == f"Bearer {SECRET}"


def test_a_redirect_to_another_host_is_not_followed(api: Api, calls: Calls):
    there = api.url.replace("127.0.0.1", "localhost")
    api.tell(Told(status=302, headers={"Location": f"{there}/?token=t"}))
    error = calls.error(calls.http(retry=None).get("a", "/", returns=int))
    assert (error.type, len(api.asked)) == ("HttpTerminalError", 1)
    assert error.message.endswith("redirects to another host (localhost), which is not followed")


def test_a_redirect_does_not_turn_a_post_into_a_get(api: Api, calls: Calls):
    api.tell(Told(status=303, headers={"Location": "/there"}))
    error = calls.error(calls.http(retry=None).post("a", "/", input=Box), Box("v"))
    assert "redirects a POST to a GET" in error.message and len(api.asked) == 1


def test_redirects_in_a_circle_end(api: Api, calls: Calls):
    api.tell(Told(status=301, headers={"Location": "/"}))
    assert "more than 5 redirects" in calls.error(calls.http(retry=None).get("a", "/")).message
    assert len(api.asked) == 6


# No answer.


def test_an_api_that_is_not_there_is_tried_again_and_named(calls: Calls):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    node = calls.http(base_url=f"http://127.0.0.1:{port}", retry=RetryPolicy(max_attempts=3))
    flow = FlowBuilder("f").triggered_by(manual()).then(node.get("a", "/x")).build()
    result = FlowTester().run(flow)
    assert result.history[0].attempts == 3
    assert result.error is not None and result.error.type == "HttpError"
    assert result.error.message.startswith(f"GET 127.0.0.1:{port}/x: no answer (ConnectError")


def test_an_api_that_says_nothing_is_given_up(calls: Calls):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        node = calls.http(base_url=url, read_timeout="20ms").get("a", "/")
        error = calls.error(node)
    assert error.message.endswith("no answer (ReadTimeout)")


# One client.


def test_calls_of_a_loop_share_connections_which_are_closed_with_it(api: Api, calls: Calls):
    http = calls.http()
    clients = http._caller.client
    node = http.get("a", "/")
    flow = FlowBuilder("f").triggered_by(manual()).then(node).then(node.as_("b")).build()
    FlowTester().run(flow)
    assert len({asked.peer for asked in api.asked}) == 1
    assert len(clients._open) == 0
    FlowTester().run(flow)
    assert len({asked.peer for asked in api.asked}) == 2
    assert len(clients._open) == 0


def test_what_an_api_sets_in_one_call_is_not_sent_in_the_next(api: Api, calls: Calls):
    api.tell(Told({}, headers={"Set-Cookie": "session=1; Path=/"}))
    node = calls.http().get("a", "/")
    flow = FlowBuilder("f").triggered_by(manual()).then(node).then(node.as_("b")).build()
    FlowTester().run(flow)
    assert ["cookie" in asked.headers for asked in api.asked] == [False, False]


async def test_a_health_check_says_what_is_wrong(api: Api, calls: Calls):
    http = calls.http(headers=HIDDEN, health="/status")
    http.get("a", "/")
    check = http.provider().health
    assert check is not None

    async def checked() -> object:
        answer = check()
        assert asyncio.iscoroutine(answer)
        return await answer

    assert await checked() is None
    assert (api.last.path, api.last.headers["authorization"]) == ("/status", f"Bearer {SECRET}")
    api.tell(Told("down", status=503))
    assert str(await checked()).endswith('/status: status 503: "down"')
    with pytest.raises(LookupError):
        current()  # it is no node, and pauses nothing
