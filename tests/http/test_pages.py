"""Following pages: by the Link header, by a function, and up to a bound."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from resolute import FlowBuilder, manual
from resolute.http import env
from resolute.http.paging import Place
from resolute.testing import FlowTester
from tests.http.conftest import Calls
from tests.support.api import Api, Asked, Told


class Query(msgspec.Struct):
    repo: str
    page: int = 1


class Item(msgspec.Struct):
    id: int


class Answer(msgspec.Struct):
    items: list[Item]
    cursor: str | None = None


def linked(asked: Asked) -> Told:
    """Three pages of two items."""
    page = int(dict(asked.query).get("page", "1"))
    link = f'<{asked.path}?page={page + 1}&size=2>; rel="next", </last>; rel="last"'
    items = [{"id": page * 10}, {"id": page * 10 + 1}]
    return Told(items, headers={"Link": link} if page < 3 else {})


ALL = [10, 11, 20, 21, 30, 31]


def test_the_link_header_leads_from_page_to_page(api: Api, calls: Calls):
    api.answer = linked
    node = calls.http(headers={"X-A": "b"}).pages(
        "all", "/{repo}/items", input=Query, returns=list[Item]
    )
    assert [item.id for item in calls.output(node, Query("r"))] == ALL
    assert [asked.path for asked in api.asked] == ["/r/items"] * 3
    assert api.last.query == [("page", "3"), ("size", "2")]
    assert {asked.headers["x-a"] for asked in api.asked} == {"b"}
    assert len({asked.peer for asked in api.asked}) == 1


def test_a_function_says_where_the_next_page_is(api: Api, calls: Calls):
    told = {"": ([1, 2], "a&b"), "a&b": ([3], None)}

    def answer(asked: Asked) -> Told:
        ids, cursor = told[dict(asked.query).get("after", "")]
        return Told(Answer([Item(one) for one in ids], cursor))

    api.answer = answer

    def following(page: Answer) -> dict[str, str] | None:
        return {"after": page.cursor} if page.cursor else None

    node = calls.http().pages(
        "all",
        "/",
        input=Query,
        returns=list[Item],
        page=Answer,
        items=lambda page: page.items,
        next=following,
    )
    assert [item.id for item in calls.output(node, Query("r", 7))] == [1, 2, 3]
    assert [dict(asked.query) for asked in api.asked] == [
        {"repo": "r", "page": "7"}, {"repo": "r", "page": "7", "after": "a&b"}
    ]  # fmt: skip


def test_a_function_can_give_a_whole_url(api: Api, calls: Calls):
    api.tell(Told([1]), Told([2]), Told([]))
    node = calls.http(base_url=f"{api.url}/v1").pages(
        "all", "/x", returns=list[int], next=lambda page: "/v2/y?z=1" if page == [1] else None
    )
    assert calls.output(node) == [1, 2]
    assert (api.last.path, api.last.query) == ("/v2/y", [("z", "1")])


def test_more_than_a_bound_fails_for_good_and_says_which(api: Api, calls: Calls):
    api.answer = linked
    http = calls.http(retry=None)
    few: dict[str, Any] = {"input": Query, "returns": list[Item]}
    error = calls.error(http.pages("a", "/", max_pages=2, **few), Query("r"))
    assert (error.type, len(api.asked)) == ("TooManyPages", 2)
    error = calls.error(http.pages("b", "/", max_items=3, **few), Query("r"))
    assert "there are more than max_items=3 items" in error.message
    exact = http.pages("c", "/", max_pages=3, max_items=6, **few)
    assert len(calls.output(exact, Query("r"))) == 6


@pytest.mark.parametrize("bound", ["max_pages", "max_items"])
def test_a_bound_below_one_is_refused(calls: Calls, bound: str):
    bounds: dict[str, Any] = {bound: 0}
    with pytest.raises(ValueError, match=f"{bound}: expected 1 or more"):
        calls.http().pages("a", "/", returns=list[int], **bounds)


def test_a_next_page_at_another_host_does_not_get_the_credentials(api: Api, calls: Calls):
    there = api.url.replace("127.0.0.1", "localhost")
    api.tell(Told([1], headers={"Link": f'<{there}/2?token=t>; rel="next"'}))
    error = calls.error(calls.http(retry=None).pages("a", "/", returns=list[int]))
    assert (error.type, len(api.asked)) == ("HttpTerminalError", 1)
    assert error.message.endswith("the next page is at another host (localhost)")


def test_only_the_page_that_fails_is_asked_for_again(api: Api, calls: Calls):
    api.tell(Told([1], headers={"Link": '</2?x=y>; rel="next"'}), Told(status=503), Told([2]))
    assert calls.output(calls.http(retry=None).pages("a", "/", returns=list[int])) == [1, 2]
    assert [asked.path for asked in api.asked] == ["/", "/2", "/2"]
    assert api.last.query == [("x", "y")]


def test_a_page_is_not_asked_for_while_the_limits_are_paused(api: Api, calls: Calls):
    used_up = {"RateLimit-Remaining": "0", "RateLimit-Reset": "60"}
    api.tell(Told([1], headers={"Link": '</2>; rel="next"', **used_up}), Told([2]))
    node = calls.http(rate_limit="100/s").pages("a", "/", returns=list[int])
    tester = FlowTester().with_rate_limiting()
    flow = FlowBuilder("f").triggered_by(manual()).then(node).build()
    assert tester.run(flow).output == [1, 2]
    assert 59 <= tester.now < 70


def test_a_next_page_that_begins_with_two_slashes_is_at_the_same_host(api: Api, calls: Calls):
    api.tell(Told([1], headers={"Link": f'<{api.url}//other.example/2>; rel="next"'}), Told([2]))
    assert calls.output(calls.http().pages("a", "/", returns=list[int])) == [1, 2]
    assert (len(api.asked), api.last.path) == (2, "/other.example/2")  # http.server takes one away


def test_a_secret_that_an_api_repeats_in_a_link_is_not_kept(
    api: Api, calls: Calls, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("API_KEY", "s3cret")
    api.tell(Told([1], headers={"Link": '</2?key=s3cret&p=2>; rel="next"'}), Told([2]))
    http = calls.http(params={"key": env("API_KEY")}, retry=None)
    assert calls.output(http.pages("a", "/", returns=list[int])) == [1, 2]
    assert sorted(api.last.query) == [("key", "s3cret"), ("p", "2")]
    page = Told([1], headers={"Link": '</2?token=s3cret>; rel="next"'})
    api.tell(page)
    error = calls.error(http.pages("b", "/", returns=list[int]))
    assert error.message.endswith("the URL of the next page has a secret in it")
    assert Place.of(Place(3, "/2?p=2").cursor) == (3, "/2?p=2")
