"""Pagination: a node that fetches page by page, and fetches none again that it has."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast, get_args, get_origin, overload

import msgspec

from resolute.durations import Duration
from resolute.errors import TooManyPages
from resolute.ids import check_name
from resolute.model.classifying import Classifier
from resolute.model.functions import hints_of, is_coroutine_function, positional_parameters
from resolute.model.nodes import (
    DEFAULT_TIMEOUT,
    AsyncNode,
    Node,
    SyncNode,
)
from resolute.model.policies import Limits, RetryPolicy

I = TypeVar("I")  # noqa: E741 - the input, as T is an item
T = TypeVar("T")

MAX_CURSOR = 4096  # characters


class Page(msgspec.Struct, Generic[T], frozen=True):
    """What a page had, and the cursor of the next one; without one it was the last."""

    items: Sequence[T]
    next: str | None = None


class PageRequest(msgspec.Struct, frozen=True):
    """Which page to fetch: its number from 0, its cursor (None: the first), how many items."""

    number: int
    cursor: str | None
    size: int


@dataclass(frozen=True)
class Pager:
    """The function of a node that is called for one page after the other.

    Called itself, without a flow, it fetches all of them.
    """

    fetch: Callable[..., Any]
    max_pages: int
    page_size: int
    cursor_source: str | None

    @property
    def takes_input(self) -> bool:
        return len(positional_parameters(self.fetch)) > 1

    @property
    def takes(self) -> Any:
        """The type of the input; Any where it takes none."""
        name = positional_parameters(self.fetch)[0]
        return hints_of(self.fetch).get(name, Any) if self.takes_input else Any

    @property
    def returns(self) -> Any:
        """A list of the items, of the type that the pages declare."""
        page = hints_of(self.fetch).get("return", Any)
        return list[get_args(page)[0]] if get_origin(page) is Page else list[Any]

    @property
    def __signature__(self) -> inspect.Signature:
        kind = inspect.Parameter.POSITIONAL_ONLY
        return inspect.Signature([inspect.Parameter("input", kind)] if self.takes_input else [])

    def ask(self, value: Any, request: PageRequest) -> Any:
        """A page, or the coroutine that fetches it."""
        return self.fetch(value, request) if self.takes_input else self.fetch(request)

    def after(self, request: PageRequest, page: Any) -> PageRequest | None:
        """The request that follows; None where this was the last page.

        Raises TypeError, ValueError for what is no page or does not lead on, and TooManyPages.
        """
        if not isinstance(page, Page):
            raise TypeError(f"page {request.number}: expected a Page, got {type(page).__name__}")
        cursor: Any = cast("Page[Any]", page).next
        if cursor is None:
            return None
        if not isinstance(cursor, str) or len(cursor) > MAX_CURSOR:
            raise TypeError(
                f"page {request.number}: expected None or a text of up to {MAX_CURSOR:,}"
                f" characters as `next`, got {type(cursor).__name__}"
            )
        if cursor == request.cursor:
            raise ValueError(f"page {request.number}: `next` leads to the same page again")
        if request.number + 1 >= self.max_pages:
            raise TooManyPages(self.max_pages)
        return PageRequest(request.number + 1, cursor, self.page_size)


class _AsyncPager(Pager):
    async def __call__(self, *args: Any) -> list[Any]:
        found: list[Any] = []
        request: PageRequest | None = PageRequest(0, None, self.page_size)
        while request is not None:
            page = await self.ask(args[0] if args else None, request)
            request = self.after(request, page)
            found += page.items
        return found


class _SyncPager(Pager):
    def __call__(self, *args: Any) -> list[Any]:
        found: list[Any] = []
        request: PageRequest | None = PageRequest(0, None, self.page_size)
        while request is not None:
            page = self.ask(args[0] if args else None, request)
            request = self.after(request, page)
            found += page.items
        return found


# A coroutine function is also a function that returns something: the first overloads win.
@overload
def paginate(  # pyright: ignore[reportOverlappingOverload]
    name: str, fetch: Callable[[PageRequest], Awaitable[Page[T]]], *, max_pages: int = ...,
    page_size: int = ..., cursor_source: str | None = ..., timeout: Duration = ...,
    retry: RetryPolicy | None = ..., rate_limit: Limits = ..., queue: str | None = ...,
    classify: Classifier | None = ...,
) -> AsyncNode[Any, list[T]]: ...  # fmt: skip
@overload
def paginate(
    name: str, fetch: Callable[[I, PageRequest], Awaitable[Page[T]]], *, max_pages: int = ...,
    page_size: int = ..., cursor_source: str | None = ..., timeout: Duration = ...,
    retry: RetryPolicy | None = ..., rate_limit: Limits = ..., queue: str | None = ...,
    classify: Classifier | None = ...,
) -> AsyncNode[I, list[T]]: ...  # fmt: skip
@overload
def paginate(
    name: str, fetch: Callable[[PageRequest], Page[T]], *, max_pages: int = ...,
    page_size: int = ..., cursor_source: str | None = ..., timeout: Duration = ...,
    retry: RetryPolicy | None = ..., rate_limit: Limits = ..., queue: str | None = ...,
    classify: Classifier | None = ...,
) -> SyncNode[Any, list[T]]: ...  # fmt: skip
@overload
def paginate(
    name: str, fetch: Callable[[I, PageRequest], Page[T]], *, max_pages: int = ...,
    page_size: int = ..., cursor_source: str | None = ..., timeout: Duration = ...,
    retry: RetryPolicy | None = ..., rate_limit: Limits = ..., queue: str | None = ...,
    classify: Classifier | None = ...,
) -> SyncNode[I, list[T]]: ...  # fmt: skip
def paginate(
    name: str,
    fetch: Callable[..., Any],
    *,
    max_pages: int = 1000,
    page_size: int = 100,
    cursor_source: str | None = None,
    timeout: Duration = DEFAULT_TIMEOUT,
    retry: RetryPolicy | None = None,
    rate_limit: Limits = None,
    queue: str | None = None,
    classify: Classifier | None = None,
) -> Node[Any, Any]:
    """A node that calls `fetch(request)` or `fetch(input, request)` for one page after the other.

    Its output is the list of all items. Each page is kept as soon as it is fetched: what comes
    after a failure, or after the death of a worker, goes on with the page that is missing. So
    `timeout`, `retry` and `rate_limit` are those of a page. More than `max_pages` are an error,
    TooManyPages. With a `cursor_source` the first page's cursor is the flow's cursor of that name,
    if it is set.
    """
    if max_pages < 1 or page_size < 1:
        raise ValueError(
            f"paginate {name!r}: expected max_pages and page_size of 1 or more, got {max_pages!r}"
            f" and {page_size!r}"
        )
    if not 1 <= len(positional_parameters(fetch)) <= 2:
        raise TypeError(f"paginate {name!r}: expected fetch(request) or fetch(input, request)")
    if cursor_source is not None:
        check_name("cursor", cursor_source)
    is_async = is_coroutine_function(fetch)
    pager = (_AsyncPager if is_async else _SyncPager)(fetch, max_pages, page_size, cursor_source)
    made = AsyncNode[Any, Any] if is_async else SyncNode[Any, Any]
    return made(
        name, pager, timeout=timeout, retry=retry or RetryPolicy(), rate_limit=rate_limit,
        queue=queue, classify=classify,
    )  # fmt: skip
