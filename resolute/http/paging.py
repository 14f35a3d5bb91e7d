"""Following an answer that says where the next page is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import httpx

from resolute.http.client import is_same_origin
from resolute.http.errors import Answer
from resolute.http.route import query_pairs

# A URL; or what changes in the query; or None at the end.
Next = str | Mapping[str, Any] | None


@dataclass(frozen=True)
class Paging:
    """How pages are followed: the type of an answer, its items (None: it is they), what is next
    (None: by the Link header), and the bounds.
    """

    page: Any
    items: Callable[[Any], Iterable[Any]] | None
    next: Callable[[Any], Next] | None
    max_pages: int
    max_items: int

    def __post_init__(self) -> None:
        for what, bound in (("max_pages", self.max_pages), ("max_items", self.max_items)):
            if bound < 1:
                raise ValueError(f"{what}: expected 1 or more, got {bound}")

    def items_of(self, value: Any) -> Iterable[Any]:
        return self.items(value) if self.items is not None else value

    def after(self, value: Any, answer: Answer) -> Next:
        return self.next(value) if self.next is not None else next_by_link(answer)


class Place(NamedTuple):
    """How far a node has come: the items so far, and path and query of the page to ask for."""

    items: int = 0
    target: str = ""

    @classmethod
    def of(cls, cursor: str | None) -> Place:
        """What `cursor` says."""
        count, _, target = (cursor or "0").partition(" ")
        return cls(int(count), target)

    @property
    def cursor(self) -> str:
        """The place as the run keeps it."""
        return f"{self.items} {self.target}"


def next_by_link(answer: Answer) -> str | None:
    """The target of the Link header with ``rel=next`` (RFC 8288)."""
    header = httpx.Headers(answer.headers).get("Link", "")
    links = httpx.Response(200, headers={"Link": header}).links
    return links.get("next", {}).get("url")


def url_after(url: httpx.URL, following: Next) -> httpx.URL | None:
    """The URL of the next page, None at the end.

    Raises ValueError for one of another host, which must not get the credentials, and what
    `query_pairs` raises.
    """
    match following:
        case None:
            return None
        case str():
            try:
                found = url.join(following)
            except httpx.InvalidURL:
                raise ValueError("the URL of the next page is none") from None
            if not is_same_origin(found, url):
                raise ValueError(f"the next page is at another host ({found.host})")
            return found
        case _:
            return url.copy_merge_params(httpx.QueryParams(tuple(query_pairs(following))))
