"""One connection to Redis, and a link that keeps one alive.

Written here, on hiredis and the loop's own transport, because the pooled asyncio client of
redis-py costs some 60 to 100 µs a command and this costs 10 (see docs/performance.md), and because
it makes the one dangerous thing impossible: each request takes its place in a queue, replies are
handed out in that order, and a request whose caller has gone keeps its place. No reply can reach
another caller. A connection that broke in any way is never used again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
from redis.asyncio.connection import SSLConnection, parse_url

from resolute.errors import ConfigurationError, StoreError, StoreUnavailable

log = logging.getLogger(__name__)

Arg = str | bytes | int | float
Command = tuple[Arg, ...]

# Its stub knows only tuples of one element.
_pack = cast("Callable[[Command], bytes]", hiredis.pack_command)  # pyright: ignore[reportUnknownMemberType]

CONNECT_TIMEOUT = 5.0  # s
REPLY_TIMEOUT = 20.0  # s; a reply this late means that the connection is dead
FIRST_BACKOFF, MAX_BACKOFF = 0.02, 2.0  # s


class ServerReply(StoreError):
    """Redis answered with an error. `code` is its first word, such as NOSCRIPT."""

    def __init__(self, text: str) -> None:
        self.code = text.partition(" ")[0]
        super().__init__(text)


class Address:
    """Where a server is and how to log in, from a redis://, rediss:// or unix:// URL."""

    def __init__(self, url: str) -> None:
        try:
            options = cast("dict[str, Any]", parse_url(url))
        except ValueError:
            # Not even the reason is repeated: it may quote a part of the password.
            raise ConfigurationError(
                "Redis URL: expected redis://[[USER]:PASSWORD@]HOST[:PORT][/DB], rediss://... or"
                " unix://PATH; a password with special characters must be percent-encoded"
            ) from None
        self.host: str = options.get("host") or "localhost"
        self.port: int = options.get("port") or 6379
        self.path: str | None = options.get("path")
        self.db: int = options.get("db") or 0
        self.username: str | None = options.get("username")
        self.password: str | None = options.get("password")
        self.url = url
        self.ssl = _ssl_context(options)

    def at(self, host: str, port: int) -> Address:
        """Another server that is logged in to in the same way."""
        scheme, _, rest = self.url.partition("://")
        place, _, options = rest.partition("?")
        login = f"{place.rpartition('@')[0]}@" if "@" in place else ""
        name = f"[{host}]" if ":" in host else host
        scheme = "redis" if scheme == "unix" else scheme
        return Address(f"{scheme}://{login}{name}:{port}" + (f"?{options}" if options else ""))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Address) and self.url == other.url

    def __hash__(self) -> int:
        return hash(self.url)

    def __str__(self) -> str:
        """Without the password: fit for a log."""
        if self.path:
            return f"unix://{self.path}"
        return f"{'rediss' if self.ssl else 'redis'}://{self.host}:{self.port}/{self.db}"


def _ssl_context(options: dict[str, Any]) -> ssl.SSLContext | None:
    if options.get("connection_class") is not SSLConnection:
        return None
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    if options.get("ssl_check_hostname") in (False, "false", "False"):
        context.check_hostname = False
    if options.get("ssl_cert_reqs") in ("none", None) and "ssl_cert_reqs" in options:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    certificate = options.get("ssl_certfile")
    if certificate:
        context.load_cert_chain(certificate, options.get("ssl_keyfile"))
    return context


class Connection(asyncio.Protocol):
    """One socket. Requests and replies pair up by order."""

    def __init__(self, on_push: Callable[[list[Any]], None] | None = None) -> None:
        self._reader = hiredis.Reader(replyError=ServerReply)
        self._waiting: deque[tuple[asyncio.Future[Any], float]] = deque()  # with its deadline
        self._transport: asyncio.WriteTransport | None = None
        self._on_push = on_push
        self._loop = asyncio.get_running_loop()
        self._watchdog: asyncio.TimerHandle | None = None
        self.closed: asyncio.Future[None] = self._loop.create_future()

    @classmethod
    async def open(
        cls,
        address: Address,
        *,
        name: str = "",
        on_push: Callable[[list[Any]], None] | None = None,
    ) -> Connection:
        """Connect and log in. Raises StoreUnavailable, or ServerReply where that is refused."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                if address.path:
                    _, connection = await loop.create_unix_connection(
                        lambda: cls(on_push), address.path, ssl=address.ssl
                    )
                else:
                    _, connection = await loop.create_connection(
                        lambda: cls(on_push), address.host, address.port, ssl=address.ssl
                    )
        except (OSError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            raise StoreUnavailable(f"cannot reach {address}: {reason}") from error
        try:
            await connection._log_in(address, name)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _log_in(self, address: Address, name: str) -> None:
        if address.password is not None:
            user = (address.username,) if address.username else ()
            await self.request(("AUTH", *user, address.password), CONNECT_TIMEOUT)
        if address.db:
            await self.request(("SELECT", address.db), CONNECT_TIMEOUT)
        if name:
            await self.request(("CLIENT", "SETNAME", name), CONNECT_TIMEOUT)

    def send(self, command: Command, timeout: float = REPLY_TIMEOUT) -> asyncio.Future[Any]:
        """Send one command; the future has its reply.

        After `timeout` seconds without one the connection is dropped, whether or not somebody still
        waits for this reply: a caller that gave up earlier must not hide that nothing comes. Raises
        TypeError and UnicodeEncodeError for what is no command.
        """
        packed = _pack(command)  # first: who waits without a request takes the reply of the next
        future = self._loop.create_future()
        if self._transport is None or self.closed.done():
            future.set_exception(StoreUnavailable("the connection to Redis is closed"))
            future.exception()  # of commands sent together only the first one's error is asked for
            return future
        deadline = self._loop.time() + timeout
        self._waiting.append((future, deadline))
        if self._watchdog is None:
            self._watchdog = self._loop.call_at(deadline, self._look_at_the_oldest)
        self._transport.write(packed)
        return future

    def post(self, command: Command) -> None:
        """Send one command that has no reply in order: SUBSCRIBE and its kin."""
        if self._transport is not None and not self.closed.done():
            self._transport.write(_pack(command))

    async def request(self, command: Command, timeout: float = REPLY_TIMEOUT) -> Any:
        """Send one command and wait for its reply. Raises ServerReply for an error reply.

        After `timeout` seconds without it the connection is dropped.
        """
        reply = await self.send(command, timeout)
        if isinstance(reply, ServerReply):
            raise reply
        return reply

    async def request_all(
        self, commands: Sequence[Command], timeout: float = REPLY_TIMEOUT
    ) -> list[Any]:
        """Send commands together; errors come back as ServerReply in their places."""
        futures = [self.send(command, timeout) for command in commands]
        return [await future for future in futures]

    def _look_at_the_oldest(self) -> None:
        """Drop the connection if the reply that is due next is overdue."""
        self._watchdog = None
        if not self._waiting:
            return
        deadline = self._waiting[0][1]
        if deadline <= self._loop.time():
            self._fail(StoreUnavailable("Redis did not answer in time"))
        else:
            self._watchdog = self._loop.call_at(deadline, self._look_at_the_oldest)

    def close(self) -> None:
        """Close it; whoever still waits gets StoreUnavailable."""
        self._fail(StoreUnavailable("the connection to Redis was closed"))

    def _fail(self, error: Exception) -> None:
        if self._transport is not None:
            self._transport.abort()
        if self._watchdog is not None:
            self._watchdog.cancel()
        while self._waiting:
            future, _ = self._waiting.popleft()
            if not future.done():
                future.set_exception(error)
                # A caller that has gone must not be told about it by the loop's logger.
                future.exception()
        if not self.closed.done():
            self.closed.set_result(None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        reason = str(exc) if exc else "the server closed it"
        self._fail(StoreUnavailable(f"the connection to Redis was lost: {reason}"))

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                if self._on_push is not None and isinstance(reply, list):
                    self._on_push(cast("list[Any]", reply))
                    continue
                future, _ = self._waiting.popleft()
                if not future.done():
                    future.set_result(reply)
        except Exception as error:
            self._fail(StoreUnavailable(f"the connection to Redis sent nonsense: {error}"))


class Link:
    """A connection that is made anew, with backoff and jitter, whenever it breaks.

    `address` may be a function that says each time where to.
    """

    def __init__(
        self,
        address: Address | Callable[[], Address],
        *,
        name: str = "",
        on_push: Callable[[list[Any]], None] | None = None,
    ) -> None:
        self._address = address
        self.name = name
        self._on_push = on_push
        self._connection: Connection | None = None
        self._opening: asyncio.Task[Connection] | None = None
        self._closed = False
        self._down_since: float | None = None
        self._failures = 0
        self._next_try = 0.0
        self.generation = 0  # how many connections there have been

    @property
    def address(self) -> Address:
        """Where the server is."""
        return self._address if isinstance(self._address, Address) else self._address()

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and not self._connection.closed.done()

    async def connection(self) -> Connection:
        """The live connection, or one attempt to make it. Raises StoreUnavailable."""
        live = self._connection
        if live is not None and not live.closed.done():
            return live
        if self._closed:
            raise StoreUnavailable("this link is closed")
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(_look_at)  # those who asked may all have given up
        opening = self._opening
        try:
            return await asyncio.shield(opening)
        except asyncio.CancelledError:
            if self._closed and opening.cancelled():  # not we were cancelled, the link was closed
                raise StoreUnavailable("this link is closed") from None
            raise

    async def _open(self) -> Connection:
        # However many callers try again: after a failure they share one dial, a little later.
        await asyncio.sleep(max(0.0, self._next_try - time.monotonic()))
        try:
            connection = await Connection.open(self.address, name=self.name, on_push=self._on_push)
        except ServerReply as error:
            # Wrong password, no permission, still loading: it may be put right while we wait.
            refused = StoreUnavailable(f"{self.address} refused the connection: {error}")
            self._note_failure(refused)
            raise refused from error
        except StoreUnavailable as error:
            self._note_failure(error)
            raise
        self._note_success()
        self._connection = connection
        self.generation += 1
        return connection

    def _note_failure(self, error: StoreUnavailable) -> None:
        """An outage is said once, not at every try; a first connection's is its caller's to say."""
        self._failures += 1
        self._next_try = time.monotonic() + backoff(self._failures) / 2
        if self.generation and self._down_since is None:
            log.warning("%s; trying again until it is back", error)
            self._down_since = time.monotonic()

    def _note_success(self) -> None:
        self._failures = 0
        if self._down_since is not None:
            log.warning(
                "%s is back after %.1f s", self.address, time.monotonic() - self._down_since
            )
            self._down_since = None

    async def execute(self, *command: Arg, timeout: float = REPLY_TIMEOUT) -> Any:
        """One command, one try. Raises StoreUnavailable or ServerReply."""
        return await (await self.connection()).request(command, timeout)

    async def execute_all(self, commands: Sequence[Command]) -> list[Any]:
        """Commands together, one try; errors come back as ServerReply in their places."""
        return await (await self.connection()).request_all(commands)

    async def close(self) -> None:
        self._closed = True
        if self._opening is not None:
            self._opening.cancel()
            with contextlib.suppress(asyncio.CancelledError, StoreUnavailable):
                await self._opening
        if self._connection is not None:
            self._connection.close()


def _look_at(task: asyncio.Task[Connection]) -> None:
    """Fetch a task's error, so that asyncio does not log it as nobody's."""
    if not task.cancelled():
        task.exception()


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row: doubling, capped, with full jitter."""
    ceiling = min(MAX_BACKOFF, FIRST_BACKOFF * 2 ** min(failures, 10))
    return random.uniform(ceiling / 2, ceiling)
