"""The types of the nodes that an HttpApi makes: those of input and answer, as they are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar, cast, overload

from resolute.http.paging import Next, Paging
from resolute.model.nodes import AsyncNode

I = TypeVar("I")  # noqa: E741
O = TypeVar("O")  # noqa: E741
P = TypeVar("P")
T = TypeVar("T")


class Verb:
    """Makes nodes that call one method of an API.

    ``api.get("issues", "/repos/{repo}/issues", input=Query, returns=list[Issue])``: fields of the
    input go into the path, and the others into the query, or for POST, PUT, PATCH and DELETE into
    a JSON body, but for those in `query`. Without `returns` the node's output is None; `bytes` and
    `str` take the answer as it is, any other type is decoded from JSON.
    """

    def __init__(self, method: str, make: Callable[..., Any]) -> None:
        self._method = method
        self._make = make

    @overload
    def __call__(
        self, name: str, path: str, *, input: type[I], returns: type[O], query: Iterable[str] = ...
    ) -> AsyncNode[I, O]: ...
    @overload
    def __call__(
        self, name: str, path: str, *, input: type[I], query: Iterable[str] = ...
    ) -> AsyncNode[I, None]: ...
    @overload
    def __call__(self, name: str, path: str, *, returns: type[O]) -> AsyncNode[Any, O]: ...
    @overload
    def __call__(self, name: str, path: str) -> AsyncNode[Any, None]: ...
    def __call__(
        self,
        name: str,
        path: str,
        *,
        input: Any = None,
        returns: Any = None,
        query: Iterable[str] = (),
    ) -> AsyncNode[Any, Any]:
        """Raises ValueError for a path that does not fit the input, TypeError for a type that JSON
        cannot be decoded to.
        """
        made = self._make(self._method, name, path, input, returns, query)
        return cast("AsyncNode[Any, Any]", made)


class Pages:
    """Makes nodes that GET page after page, and whose output is the items of all of them.

    Where an answer is a list of items, ``returns=list[Issue]`` is enough, and the Link header with
    ``rel=next`` says where the next page is. Where it is more, `page` is its type, and `items` gets
    the items out of it. `next` says of an answer what comes next instead of the header: a URL of
    the same host, values to change in the query, or None.

    It is a node of `paginate`: each page is kept, and timeout, retries and limits are those of a
    page. More than `max_pages` pages (TooManyPages) or `max_items` items fail it for good.
    """

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    @overload
    def __call__(
        self,
        name: str,
        path: str,
        *,
        returns: type[list[T]],
        input: type[I],
        next: Callable[[list[T]], Next] | None = ...,
        max_pages: int = ...,
        max_items: int = ...,
    ) -> AsyncNode[I, list[T]]: ...
    @overload
    def __call__(
        self,
        name: str,
        path: str,
        *,
        returns: type[list[T]],
        next: Callable[[list[T]], Next] | None = ...,
        max_pages: int = ...,
        max_items: int = ...,
    ) -> AsyncNode[Any, list[T]]: ...
    @overload
    def __call__(
        self,
        name: str,
        path: str,
        *,
        returns: type[list[T]],
        page: type[P],
        items: Callable[[P], Iterable[T]],
        input: type[I],
        next: Callable[[P], Next] | None = ...,
        max_pages: int = ...,
        max_items: int = ...,
    ) -> AsyncNode[I, list[T]]: ...
    @overload
    def __call__(
        self,
        name: str,
        path: str,
        *,
        returns: type[list[T]],
        page: type[P],
        items: Callable[[P], Iterable[T]],
        next: Callable[[P], Next] | None = ...,
        max_pages: int = ...,
        max_items: int = ...,
    ) -> AsyncNode[Any, list[T]]: ...
    def __call__(
        self,
        name: str,
        path: str,
        *,
        returns: Any,
        page: Any = None,
        items: Callable[[Any], Iterable[Any]] | None = None,
        input: Any = None,
        next: Callable[[Any], Next] | None = None,
        max_pages: int = 100,
        max_items: int = 10_000,
    ) -> AsyncNode[Any, list[Any]]:
        """Raises ValueError and TypeError as `Verb` does, and for bounds below 1."""
        if (page is None) != (items is None):
            raise ValueError("pages: expected both page= and items=, or neither")
        pages = Paging(page or returns, items, next, max_pages, max_items)
        return cast("AsyncNode[Any, list[Any]]", self._make(name, path, input, returns, pages))
