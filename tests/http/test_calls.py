"""What is sent for an input, and what an answer becomes."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from typing import Any, assert_type

import msgspec
import pytest

from resolute import AsyncNode
from resolute.http import HttpApi
from tests.http.conftest import Calls
from tests.support.api import Api, Told


class Query(msgspec.Struct, rename="camel"):
    owner: str
    repo_name: str = "r"
    labels: list[str] = []
    since: date | None = None
    open_only: bool = True
    page: int = 1


class Issue(msgspec.Struct):
    number: int
    title: str = ""


class New(msgspec.Struct):
    repo: str
    title: str
    dry_run: bool = False


class Box(msgspec.Struct):
    value: Any = None


class Outer(msgspec.Struct):
    inner: Inner  # noqa: F821  # pyright: ignore[reportUndefinedVariable, reportUnknownVariableType]


def test_the_input_fills_path_and_query(api: Api, calls: Calls):
    api.tell(Told([{"number": 7, "title": "x", "more": 1}]))
    issues = calls.http().get(
        "issues", "/repos/{owner}/{repoName}/issues", input=Query, returns=list[Issue]
    )
    found = calls.output(issues, Query("a b/ü?", labels=["x&y", "z"], since=date(2026, 1, 2)))
    assert found == [Issue(7, "x")]
    assert api.last.method == "GET"
    assert api.last.path == "/repos/a%20b%2F%C3%BC%3F/r/issues"
    assert api.last.query == [
        ("labels", "x&y"), ("labels", "z"), ("since", "2026-01-02"), ("openOnly", "true"),
        ("page", "1"),
    ]  # fmt: skip
    assert api.last.body == b""
    assert "idempotency-key" not in api.last.headers


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
def test_a_call_that_writes_has_a_json_body_and_an_idempotency_key(
    api: Api, calls: Calls, method: str
):
    make: Any = getattr(calls.http(), method)
    api.tell(Told({"number": 1}, 201))
    node = make("make", "/repos/{repo}", input=New, returns=Issue, query=["dry_run"])
    assert calls.output(node, New("r", "t")) == Issue(1)
    assert api.last.method == method.upper()
    assert api.last.json == {"title": "t"}
    assert api.last.query == [("dry_run", "false")]
    assert api.last.headers["content-type"] == "application/json"
    assert api.last.headers["idempotency-key"] == "test/1.0"


def test_the_idempotency_key_can_be_switched_off(api: Api, calls: Calls):
    calls.output(calls.http(idempotency_header=None).post("a", "/", input=New), New("r", "t"))
    assert "idempotency-key" not in api.last.headers
    calls.output(calls.http(idempotency_header="X-Once").post("a", "/", input=New), New("r", "t"))
    assert api.last.headers["x-once"] == "test/1.0"


def test_every_attempt_has_the_same_idempotency_key(api: Api, calls: Calls):
    api.tell(Told(status=503), Told(status=429), Told({}))
    calls.output(calls.http(retry=None).post("a", "/", input=New), New("r", "t"))
    assert [one.headers["idempotency-key"] for one in api.asked] == ["test/1.0"] * 3


def test_a_body_can_be_any_json(api: Api, calls: Calls):
    calls.output(calls.http().put("tags", "/tags", input=list[str]), ["a", "b"])
    assert api.last.json == ["a", "b"]


def test_a_call_without_input_and_one_without_an_output(api: Api, calls: Calls):
    api.tell(Told([1, 2]))
    assert calls.output(calls.http().get("all", "/all", returns=list[int])) == [1, 2]
    api.tell(Told(b"", 204))
    assert calls.output(calls.http().delete("none", "/all")) is None
    assert (api.last.body, "content-type" in api.last.headers) == (b"", False)


def test_bytes_and_text_are_taken_as_they_are(api: Api, calls: Calls):
    api.tell(Told(b"\xc3\xbc{"))
    assert calls.output(calls.http().get("raw", "/", returns=bytes)) == b"\xc3\xbc{"
    assert calls.output(calls.http().get("text", "/", returns=str)) == "ü{"
    assert api.last.headers["accept"] == "*/*"


def test_a_base_url_can_have_a_path(api: Api, calls: Calls):
    calls.output(calls.http(base_url=f"{api.url}/api/v3/").get("a", "/x"))
    assert api.last.path == "/api/v3/x"


def test_headers_and_params_of_the_api_go_with_each_call(api: Api, calls: Calls):
    http = calls.http(headers={"X-Team": "blue", "accept": "text/x"}, params={"v": "2"})
    calls.output(http.get("a", "/", input=Box), Box("y"))
    assert (api.last.headers["x-team"], api.last.headers["accept"]) == ("blue", "text/x")
    assert api.last.query == [("v", "2"), ("value", "y")]
    assert api.last.headers["user-agent"].startswith("resolute/")


@pytest.mark.parametrize("bad", ["", ".", "..", None])
def test_a_field_that_would_lead_to_another_path_is_refused(api: Api, calls: Calls, bad: Any):
    error = calls.error(calls.http(retry=None).get("a", "/x/{value}", input=Box), Box(bad))
    assert error.type == "HttpTerminalError"
    assert "/x/{value}: input: expected a 'value'" in error.message
    assert api.asked == []


def test_what_cannot_be_in_a_query_is_said(api: Api, calls: Calls):
    error = calls.error(calls.http(retry=None).get("a", "/", input=Box), Box({"a": 1}))
    assert "expected a text, number or date as 'value', got dict" in error.message
    assert api.asked == []


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("x", "begins with /"),
        ("/x?y=1", r"without \? and #"),
        ("/x/{a b}", "names of fields in braces|without"),
        ("/x/{owner", "names of fields in braces"),
        ("/x/{nobody}", "the input has no 'nobody'; it has owner, repoName"),
    ],
)
def test_a_path_that_cannot_be_meant_is_refused_when_the_node_is_made(path: str, said: str):
    http = HttpApi("api", base_url="https://localhost")
    with pytest.raises(ValueError, match=said):
        http.get("a", path, input=Query)


def test_a_path_with_fields_needs_an_input():
    with pytest.raises(ValueError, match="expected input=, which has owner"):
        HttpApi("api", base_url="https://localhost").get("a", "/{owner}")


@pytest.mark.parametrize(
    "url", ["localhost", "ftp://localhost", "https://u:secret@localhost", "https://h?key=secret"]
)
def test_a_base_url_that_cannot_be_one_is_refused_and_not_told(url: str):
    with pytest.raises(ValueError, match="base_url: expected") as refused:
        HttpApi("api", base_url=url)
    assert "secret" not in str(refused.value)


def test_an_answer_of_another_shape_is_terminal_and_says_where(api: Api, calls: Calls):
    api.tell(Told([{"number": "seven"}]))
    node = calls.http(retry=None).get("issues", "/issues", returns=list[Issue])
    error = calls.error(node)
    assert error.type == "HttpTerminalError" and len(api.asked) == 1
    assert error.message.endswith(
        "/issues: the answer does not fit: Expected `int`, got `str` - at `$[0].number`"
    )


def test_an_answer_that_is_no_json_is_tried_again(api: Api, calls: Calls):
    api.tell(Told(b"<html>"), Told({"number": 3}))
    assert calls.output(calls.http(retry=None).get("a", "/", returns=Issue)) == Issue(3)
    assert len(api.asked) == 2


def test_an_answer_that_is_too_large_is_not_read_to_its_end(api: Api, calls: Calls):
    api.tell(Told(b"x" * 1001))
    error = calls.error(calls.http(retry=None, max_answer=1000).get("a", "/", returns=bytes))
    assert error.type == "HttpTerminalError" and len(api.asked) == 1
    assert "more than max_answer=1,000 bytes" in error.message
    assert calls.output(calls.http(max_answer=1001).get("a", "/", returns=bytes)) == b"x" * 1001


def test_the_types_of_a_node_are_those_that_were_given():
    http = HttpApi("api", base_url="https://localhost")
    assert_type(http.get("a", "/{owner}", input=Query, returns=Issue), AsyncNode[Query, Issue])
    assert_type(http.post("b", "/", input=New, returns=list[int]), AsyncNode[New, list[int]])
    assert_type(http.put("c", "/", input=New), AsyncNode[New, None])
    assert_type(http.patch("d", "/", returns=Issue), AsyncNode[Any, Issue])
    assert_type(http.delete("e", "/"), AsyncNode[Any, None])
    found = http.pages("f", "/{owner}", input=Query, returns=list[Issue])
    assert_type(found, AsyncNode[Query, list[Issue]])
    boxed = http.pages(
        "g", "/", returns=list[Issue], page=Box, items=lambda box: list[Issue](box.value)
    )
    assert_type(boxed, AsyncNode[Any, list[Issue]])
    assert (found.input_type, found.output_type) == (Query, list[Issue])
    assert boxed.output_type == list[Issue]


def test_the_nodes_are_those_of_the_provider():
    http = HttpApi("api", base_url="https://localhost", rate_limit="5/s", timeout="7s", queue="io")
    one = http.get("one", "/1")
    two = http.post("two", "/2", input=New, returns=Issue)
    assert (one.name, one.timeout, one.queue, len(one.limits)) == ("api.one", "7s", "io", 1)
    assert (two.input_type, two.output_type) == (New, Issue)
    with pytest.raises(ValueError, match="two nodes are named 'one'"):
        http.get("one", "/other")
    provider = http.provider()
    assert provider is http.provider()
    assert list(provider.offered) == ["api.one", "api.two"]
    assert provider["one"].limits == one.limits and provider["one"].fn is one.fn
    with pytest.raises(ValueError, match="'three' is made after provider"):
        http.get("three", "/3")


def test_a_type_that_names_another_further_down_is_looked_at_when_it_is_there(
    api: Api, calls: Calls
):
    node = calls.http().get("late", "/", returns=Outer)
    api.tell(Told({"inner": {"value": 1}}))
    globals()["Inner"] = Box
    try:
        assert calls.output(node) == Outer(Box(1))
    finally:
        del globals()["Inner"]


def test_a_type_that_json_cannot_be_is_refused_when_the_node_is_made(calls: Calls):
    with pytest.raises(TypeError):
        calls.http().get("a", "/", returns=dict[int | str, dict[bytes | str, Any]])


def test_without_httpx_the_error_says_what_to_install() -> None:
    code = "import sys; sys.modules['httpx'] = None; import resolute; import resolute.http"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    said = "ConfigurationError: resolute.http needs httpx: pip install 'resolute[http]'"
    assert said in done.stderr
