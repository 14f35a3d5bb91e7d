"""A small issue tracker on loopback: pages, a token, a limit, and calls that fail now and then."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

TOKEN = "tracker-token"  # noqa: S105 - of this tracker, which lives as long as the example
PAGE = 3  # issues
ALLOWED = 6  # calls before it wants to be left alone
PAUSE = 1  # s


@dataclass
class Tracker:
    """What the tracker knows. `early` are the calls that came while it took none."""

    url: str = ""
    issues: int = 8
    comments: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    refused: set[str] = field(default_factory=set[str])
    left: int = ALLOWED
    opens: float = 0.0
    early: int = 0

    def count(self) -> dict[str, str]:
        """Count a call; what its answer says of the limit."""
        now = time.monotonic()
        if self.left == 0 and now < self.opens:
            self.early += 1
        elif self.left == 0:
            self.left = ALLOWED
        self.left = max(0, self.left - 1)
        if self.left == 0 and now >= self.opens:
            self.opens = now + PAUSE
        return {"RateLimit-Remaining": str(self.left), "RateLimit-Reset": str(PAUSE)}

    def page(self, path: str, number: int) -> tuple[Any, dict[str, str]]:
        """A page of issues, and where the next one is."""
        first = (number - 1) * PAGE + 1
        last = min(self.issues, first + PAGE - 1)
        found = [{"number": n, "title": f"Issue {n}"} for n in range(first, last + 1)]
        link = {"Link": f'<{path}?page={number + 1}>; rel="next"'} if last < self.issues else {}
        return found, link

    def comment(self, key: str, path: str, body: Any) -> tuple[int, Any]:
        """Take a comment once for each key; every third is refused at first."""
        if len(self.comments) % 3 == 2 and key not in self.refused:
            self.refused.add(key)
            return 503, {"message": "try again"}
        new = {"id": len(self.comments) + 1, "path": path, "body": body["body"]}
        return 201, self.comments.setdefault(key, new)


@contextmanager
def serving() -> Generator[Tracker]:
    """A tracker that answers as long as the context lasts."""
    tracker = Tracker()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/status":
                self.answer(200, "ok", {})
            elif self.is_known():
                number = int(parse_qs(parts.query).get("page", ["1"])[0])
                with lock:
                    found, link = tracker.page(parts.path, number)
                    headers = tracker.count() | link
                self.answer(200, found, headers)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.is_known():
                with lock:
                    key = self.headers["Idempotency-Key"]
                    status, found = tracker.comment(key, self.path, body)
                    headers = tracker.count()
                self.answer(status, found, headers)

        def is_known(self) -> bool:
            is_known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            if not is_known:
                self.answer(401, {"message": "who are you?"}, {})
            return is_known

        def answer(self, status: int, value: Any, headers: dict[str, str]) -> None:
            data = json.dumps(value).encode()
            self.send_response(status)
            for name, text in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, text)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    tracker.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield tracker
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
