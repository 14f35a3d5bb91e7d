"""Sending a request: one client for each event loop, bounded answers, no way to another host."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from http.cookiejar import CookieJar, DefaultCookiePolicy
from weakref import WeakKeyDictionary

import httpx

from resolute import __version__
from resolute.http.environment import Redactor
from resolute.http.errors import (
    Answer,
    HttpError,
    HttpStatusError,
    HttpTerminalError,
    Target,
    shown,
)

MAX_REDIRECTS = 5
MOST_OF_AN_ERROR = 4096  # bytes that are read of an answer that is no success

_Loop = asyncio.AbstractEventLoop
_Life = AsyncGenerator[httpx.AsyncClient]

# The logs of httpx have whole URLs, and a query may hold what is secret.
_LOGGERS = ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy")
_is_ours: ContextVar[bool] = ContextVar("resolute_http", default=False)


def _is_not_ours(_: logging.LogRecord) -> bool:
    return not _is_ours.get()


@contextmanager
def _unlogged() -> Generator[None]:
    token = _is_ours.set(True)
    try:
        yield
    finally:
        _is_ours.reset(token)


@dataclass(frozen=True)
class Request:
    """What is to be sent. `redact` takes the secrets out of what comes back."""

    method: str
    url: httpx.URL
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(repr=False)
    redact: Redactor

    @property
    def target(self) -> Target:
        path = self.url.raw_path.partition(b"?")[0].decode("ascii", "replace")
        return target_of(self.method, self.url, shown(self.redact(path)))


class HttpClient:
    """Sends requests. Times are in seconds, `max_answer` in bytes."""

    def __init__(self, connect: float, read: float, max_answer: int) -> None:
        self._timeout = httpx.Timeout(read, connect=connect, pool=None)
        self._max_answer = max_answer
        self._open: WeakKeyDictionary[_Loop, tuple[httpx.AsyncClient, _Life]] = WeakKeyDictionary()

    async def send(self, request: Request) -> Answer:
        """The answer, of a status of success. Raises HttpError."""
        target, redact = request.target, request.redact
        try:
            with _unlogged():
                answer = await self._answer(request, await self._client())
        except httpx.LocalProtocolError:  # its text has the header that cannot be sent
            raise HttpTerminalError(target, "the request has a header that is no header") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            text = shown(redact(str(error)))
            why = f"{type(error).__name__}: {text}" if text else type(error).__name__
            raise HttpError(target, f"no answer ({why})") from None
        if not 200 <= answer.status_code < 300:
            said = shown(redact(answer.body.decode("utf-8", "replace")))
            raise HttpStatusError(target, answer, said)
        return answer

    async def _client(self) -> httpx.AsyncClient:
        """The client of this loop. Nothing here waits, so that there is never a second one."""
        loop = asyncio.get_running_loop()
        held = self._open.get(loop)
        if held is None:
            life = self._live(loop)
            held = self._open[loop] = (await anext(life), life)
        return held[0]

    async def _live(self, loop: _Loop) -> _Life:
        """Holds a client until the loop ends its asynchronous generators, which is at its end."""
        for name in _LOGGERS:
            logging.getLogger(name).addFilter(_is_not_ours)
        client = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
            # What one run's answers set must not go out with another's calls.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        )
        try:
            yield client
        finally:
            self._open.pop(loop, None)
            await client.aclose()

    async def _answer(self, request: Request, client: httpx.AsyncClient) -> Answer:
        asked = httpx.Request(
            request.method,
            request.url,
            headers=_headers(request),
            content=request.body,
            extensions={"timeout": self._timeout.as_dict()},
        )
        for _ in range(MAX_REDIRECTS + 1):
            response = await client.send(asked, stream=True, follow_redirects=False, auth=None)
            try:
                following = response.next_request
                if following is None:
                    return await self._read(request, response)
            finally:
                await response.aclose()
            if not is_same_origin(following.url, request.url):
                where = following.url.host
                raise HttpTerminalError(
                    request.target, f"redirects to another host ({where}), which is not followed"
                )
            if following.method != request.method:
                raise HttpTerminalError(
                    request.target, f"redirects a {request.method} to a {following.method}"
                )
            asked = following
        raise HttpTerminalError(request.target, f"more than {MAX_REDIRECTS} redirects")

    async def _read(self, request: Request, response: httpx.Response) -> Answer:
        is_success = response.is_success
        most = self._max_answer if is_success else MOST_OF_AN_ERROR
        body = bytearray()
        async for chunk in response.aiter_bytes():
            body += chunk
            if len(body) > most and is_success:
                raise HttpTerminalError(
                    request.target, f"the answer has more than max_answer={most:,} bytes"
                )
            if len(body) > most:
                break
        return Answer(response.status_code, response.headers, bytes(body[:most]))


def target_of(method: str, url: httpx.URL, path: str) -> Target:
    """What errors say of a call: the host of the URL with its port, and no user."""
    return Target(method, url.netloc.decode("ascii", "replace"), path)


def is_same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    """Whether credentials for one are meant for the other."""
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def _headers(request: Request) -> httpx.Headers:
    headers = httpx.Headers(
        {
            "Accept": "application/json",
            "Accept-Encoding": "gzip, deflate",
            "User-Agent": f"resolute/{__version__}",
        }
    )
    if request.body is not None:
        headers["Content-Type"] = "application/json"
    headers.update(request.headers)
    return headers
