from __future__ import annotations

import asyncio
from typing import Any, cast

import msgspec
import pytest

from resolute import (
    AsyncNode,
    FlowBuilder,
    Page,
    PageRequest,
    SyncNode,
    TooManyPages,
    manual,
    paginate,
)
from resolute.testing import FlowTester


class Query(msgspec.Struct):
    first: int


class Item(msgspec.Struct):
    number: int


async def fetch(query: Query, page: PageRequest) -> Page[Item]:
    number = query.first + page.number
    return Page([Item(number)], (page.cursor and page.cursor + "+") or "a" if number < 12 else None)


def plain(page: PageRequest) -> Page[Item]:
    return Page([Item(page.number)] * page.size, "more" if page.number == 0 else None)


def untyped(page: Any) -> Any:
    return Page([page.number])


def test_types_come_from_the_function():
    asked = paginate("asked", fetch)
    assert isinstance(asked, AsyncNode)
    assert (asked.takes_input, asked.input_type, asked.output_type) == (True, Query, list[Item])
    alone = paginate("alone", plain)
    assert isinstance(alone, SyncNode)
    assert (alone.takes_input, alone.input_type, alone.output_type) == (False, Any, list[Item])
    assert paginate("untyped", untyped).output_type == list[Any]


def test_the_node_itself_fetches_all_pages():
    items: Any = asyncio.run(cast("Any", paginate("asked", fetch)(Query(10))))
    assert [item.number for item in items] == [10, 11, 12]
    assert len(paginate("alone", plain, page_size=3)()) == 6
    with pytest.raises(TooManyPages, match="max_pages=1 "):
        paginate("alone", plain, max_pages=1)()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_pages": 0}, "max_pages and page_size of 1 or more, got 0 and 100"),
        ({"page_size": -1}, "got 1000 and -1"),
        ({"cursor_source": "no spaces"}, "cursor"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], problem: str):
    with pytest.raises(ValueError, match=problem):
        paginate("pages", plain, **options)


def test_a_function_of_another_shape_is_refused():
    def three(a: int, b: int, c: int) -> None: ...

    with pytest.raises(TypeError, match=r"fetch\(request\) or fetch\(input, request\)"):
        paginate("pages", cast("Any", three))


@pytest.mark.parametrize(
    ("page", "problem"),
    [
        ([1], "expected a Page, got list"),
        (Page([1], cast("Any", 7)), "expected None or a text of up to 4,096 characters"),
        (Page([1], "x" * 5000), "expected None or a text"),
    ],
)
def test_what_is_no_page_is_an_error(page: Any, problem: str):
    def wrong(request: PageRequest) -> Page[int]:
        return page

    with pytest.raises(TypeError, match=problem):
        paginate("pages", wrong)()


def test_a_mock_returns_the_whole_list():
    pages = paginate("asked", fetch)
    flow = FlowBuilder("mocked", input=Query).triggered_by(manual()).then(pages).build()
    tester = FlowTester().mock_value(pages, [Item(7)])
    assert tester.run(flow, Query(1)).output == [Item(7)]
