"""One call of an API, from the input to the decoded answer, and one after the other."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import httpx
import msgspec

from resolute.engine.context import current
from resolute.errors import ConfigurationError
from resolute.http.client import HttpClient, Request, target_of
from resolute.http.environment import Text, read, read_all, redactor
from resolute.http.errors import Answer, HttpError, HttpStatusError, HttpTerminalError
from resolute.http.paging import Paging, Place, url_after
from resolute.http.quota import pause_of
from resolute.http.route import Route
from resolute.model.codec import decode_foreign
from resolute.model.paging import Page


class Read(NamedTuple):
    """An answer, and what it was decoded to."""

    value: Any
    answer: Answer


@dataclass(frozen=True)
class Reading:
    """How an answer becomes a value."""

    decode: Callable[[bytes], Any]
    accepts: str = "application/json"

    @classmethod
    def of(cls, returns: Any) -> Reading:
        """Of that type. Raises TypeError where JSON cannot be decoded to it."""
        if returns is None:
            return cls(lambda _: None, "*/*")
        if returns is bytes:
            return cls(bytes, "*/*")
        if returns is str:
            return cls(lambda body: body.decode("utf-8"), "*/*")
        with contextlib.suppress(NameError):  # it names a type that comes further down
            _decoder(returns)
        return cls(lambda body: _decoder(returns).decode(body or b"null"))

    def value(self, request: Request, answer: Answer) -> Any:
        """The value. Raises HttpTerminalError for another type, HttpError for what is no JSON."""
        try:
            return self.decode(answer.body)
        except msgspec.ValidationError as error:
            said = request.redact(str(error))
            raise HttpTerminalError(request.target, f"the answer does not fit: {said}") from None
        except ValueError as error:
            kind = type(error).__name__
            raise HttpError(request.target, f"the answer cannot be read ({kind})") from None


@dataclass(frozen=True)
class Caller:
    """Makes calls, with what all calls of an API have in common."""

    client: HttpClient
    base: Text
    headers: Mapping[str, Text]
    params: Mapping[str, Text]

    async def ask(
        self, route: Route, value: Any, reading: Reading, headers: Mapping[str, str]
    ) -> Read:
        """From within a node: its limits are paused if the answer says so. Raises HttpError."""
        request = self._request(route, value, {"Accept": reading.accepts, **headers})
        return await self._ask(request, reading)

    async def page(
        self, route: Route, value: Any, reading: Reading, paging: Paging, cursor: str | None
    ) -> Page[Any]:
        """The first page, or the one at a cursor. Raises HttpError."""
        request = self._request(route, value, {"Accept": reading.accepts})
        place = Place.of(cursor)
        if place.target:
            url = request.url.copy_with(raw_path=place.target.encode("ascii"))
            request = replace(request, url=url.copy_merge_params(read_all(self.params)))
        page = await self._ask(request, reading)
        items = list(paging.items_of(page.value))
        count = place.items + len(items)
        if count > paging.max_items:
            why = f"there are more than max_items={paging.max_items:,} items"
            raise HttpTerminalError(request.target, why)
        try:
            url = url_after(request.url, paging.after(page.value, page.answer))
        except (ValueError, TypeError) as error:
            raise HttpTerminalError(request.target, request.redact(str(error))) from None
        if url is None:
            return Page(items)
        return Page(items, self._cursor(request, url, count))

    def _cursor(self, request: Request, url: httpx.URL, count: int) -> str:
        """Where a page is, as the run keeps it: without what comes from the environment."""
        for name in self.params:
            url = url.copy_remove_param(name)
        cursor = Place(count, url.raw_path.decode("ascii")).cursor
        if request.redact(cursor) != cursor:
            raise HttpTerminalError(request.target, "the URL of the next page has a secret in it")
        return cursor

    async def send(self, route: Route, value: Any, headers: Mapping[str, str]) -> Answer:
        """The plain answer, from anywhere. Raises HttpError."""
        return await self.client.send(self._request(route, value, headers))

    async def _ask(self, request: Request, reading: Reading) -> Read:
        try:
            answer = await self.client.send(request)
        except HttpStatusError as error:
            _pause_limits(error.response)
            raise
        _pause_limits(answer)
        return Read(reading.value(request, answer), answer)

    def _request(self, route: Route, value: Any, headers: Mapping[str, str]) -> Request:
        """Raises ConfigurationError where the worker lacks a variable, TerminalError as HttpError
        for an input that cannot be sent.
        """
        base = base_of(read(self.base))
        own, params = read_all(self.headers), read_all(self.params)
        redact = redactor([*self.headers.values(), *self.params.values()])
        try:
            path, query, body = route.parts(value, params)
            url = httpx.URL(base + path + (f"?{query}" if query else ""))
        except (ValueError, TypeError, httpx.InvalidURL) as error:
            there = httpx.URL(base)
            target = target_of(route.method, there, there.path.rstrip("/") + route.path)
            raise HttpTerminalError(target, redact(str(error))) from None
        return Request(route.method, url, {**headers, **own}, body, redact)


@cache
def _decoder(returns: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(returns, dec_hook=decode_foreign)


def base_of(url: str) -> str:
    """A base URL without the slash at its end. Raises ConfigurationError (also a ValueError)."""
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL:
        raise BadBase("expected a URL") from None
    if found.scheme not in ("http", "https") or not found.host:
        raise BadBase("expected http:// or https:// and a host")
    if found.userinfo or found.query or found.fragment:
        raise BadBase("expected no user, query or fragment in it; give credentials in headers=")
    return str(found).rstrip("/")


class BadBase(ConfigurationError, ValueError):
    """A base URL that cannot be one. The URL is not told: there may be a password in it."""

    def __init__(self, expected: str) -> None:
        super().__init__(f"base_url: {expected}")


def _pause_limits(answer: Answer) -> None:
    """Nobody starts until the API takes calls again, if it says so."""
    pause = pause_of(answer.headers)
    if pause is not None:
        current().pause_limits(pause)
