"""Liveness and readiness for systemd, Kubernetes and people.

Two fixed answers need no web framework in every worker's memory: this is the standard library.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable

MAX_REQUEST = 8192  # bytes
PATIENCE = 5.0  # s for a client to send its request


@contextlib.asynccontextmanager
async def serve_health(
    host: str, port: int, is_ready: Callable[[], bool]
) -> AsyncGenerator[asyncio.Server]:
    """Serve GET /health/live (200 while the loop runs) and /health/ready (200 or 503)."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            async with asyncio.timeout(PATIENCE):
                status, body = await _respond(reader, is_ready)
                writer.write(
                    f"HTTP/1.1 {status}\r\nContent-Type: text/plain\r\nConnection: close\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
                )
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, host, port, limit=MAX_REQUEST)
    async with server:
        yield server


async def _respond(reader: asyncio.StreamReader, is_ready: Callable[[], bool]) -> tuple[str, str]:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        return "431 Request Header Fields Too Large", "too large\n"
    method, _, rest = head.decode("latin-1").partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    if method not in ("GET", "HEAD"):
        return "405 Method Not Allowed", "GET only\n"
    match path:
        case "/health/live":
            return "200 OK", "live\n"
        case "/health/ready":
            return ("200 OK", "ready\n") if is_ready() else ("503 Service Unavailable", "not yet\n")
        case _:
            return "404 Not Found", "try /health/live or /health/ready\n"
