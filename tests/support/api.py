"""An API for tests: a real server on loopback that answers what a test tells it to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

import msgspec


@dataclass(frozen=True)
class Asked:
    """A request as it came. `at` is monotonic."""

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: Mapping[str, str]  # by names in lower case
    body: bytes
    at: float
    peer: int  # the port of the connection's other end

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@dataclass(frozen=True)
class Told:
    """What to answer; `body` is encoded as JSON unless it is bytes."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


Answering = Callable[[Asked], Told]


class Api:
    """What came, and what is answered: change `answer` at any time."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.asked: list[Asked] = []
        self.answer: Answering = lambda _: Told({})
        self.before: Callable[[Asked], None] = lambda _: None  # may wait; others are answered

    def tell(self, *told: Told) -> None:
        """Answer these in turn, the last one again and again."""
        first = len(self.asked)
        self.answer = lambda _: told[min(len(self.asked) - first, len(told)) - 1]

    @property
    def last(self) -> Asked:
        return self.asked[-1]


@contextmanager
def serving() -> Generator[Api]:
    """A server for as long as the context lasts."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (ConnectionError, ValueError):  # the other side went away in the middle
                self.close_connection = True

        def respond(self) -> None:
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            found = parse_qsl(query, keep_blank_values=True)
            at, peer = time.monotonic(), int(self.client_address[1])
            asked = Asked(self.command, path, found, headers, body, at, peer)
            api.before(asked)
            with lock:
                api.asked.append(asked)
                told = api.answer(asked)
            data = told.body if isinstance(told.body, bytes) else msgspec.json.encode(told.body)
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = respond

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: pytest shows what came where a test fails."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    api = Api(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
