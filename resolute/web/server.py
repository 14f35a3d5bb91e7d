"""The HTTP server of a coordinator: webhooks, and signals for whoever has the token."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import Any

import msgspec

from resolute.client import Client
from resolute.errors import (
    AlreadyRunning,
    ConfigurationError,
    IdConflict,
    InvalidInput,
    InvalidSignal,
    NotEncodable,
    PayloadTooLarge,
    RunEnded,
    SignalsFull,
    StoreUnavailable,
    UnknownRun,
    UnknownSignal,
    UnknownTrigger,
)
from resolute.web.hooks import Hooks, Refused

try:
    import h11
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as missing:
    raise ConfigurationError(
        f"--http needs {missing.name}: pip install 'resolute[web]'"
    ) from missing

log = logging.getLogger(__name__)

TOKEN_FROM = "RESOLUTE_HTTP_TOKEN"  # noqa: S105 - the name of the variable
MAX_BODY = 1024 * 1024  # bytes
MAX_HEAD = 32 * 1024  # bytes
PATIENCE = 10.0  # s for the head of a request, and again for its body
MAX_CONNECTIONS = 500
TOO_DEEP = "the body is nested too deeply"


class _Protocol(H11Protocol):
    """Closes a connection whose request does not come, be it the first or a later one.

    While a request is answered its body has a clock of its own (`_body`). At all other times what
    comes is a head, or the rest of a body that nobody reads: from its first byte on it has
    PATIENCE, however it dribbles in.
    """

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.our_state in (h11.SEND_RESPONSE, h11.SEND_BODY):
            self._forget()
        else:
            self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget()
        super().connection_lost(exc)

    def _expect(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(PATIENCE, self._give_up)

    def _forget(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """Without signal handlers: those of the daemon end it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@contextlib.asynccontextmanager
async def serve_http(host: str, port: int, client: Client) -> AsyncGenerator[int]:
    """Serve for as long as the `async with` lasts; the port, which is chosen where it is 0.

    Raises ConfigurationError where the address cannot be had.
    """
    config = uvicorn.Config(
        app_of(client), host=host, port=port, http=_Protocol, ws="none", lifespan="off",
        log_level="warning", access_log=False, limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=5, timeout_graceful_shutdown=5, h11_max_incomplete_event_size=MAX_HEAD,
        server_header=False,
    )  # fmt: skip
    server = _Server(config)
    try:
        listener = config.bind_socket()
    except SystemExit:  # uvicorn's way to say so
        raise ConfigurationError(f"--http: cannot listen on {host}:{port}") from None
    listener.listen(MAX_CONNECTIONS)  # who comes before the server has begun waits for it
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        await asyncio.gather(serving, return_exceptions=True)
        listener.close()


def app_of(client: Client) -> Starlette:
    """The application, for who serves it otherwise."""
    hooks = Hooks(client)

    async def deliver(request: Request) -> JSONResponse:
        try:
            body = await _body(request)
            headers = dict(request.headers)
            runs = await hooks.deliver(f"/{request.path_params['path']}", headers, body)
        except Refused as refused:
            return _error(refused.status, refused.reason)
        except StoreUnavailable:
            return _error(503, "Redis does not answer: send it again")
        except RecursionError:
            return _error(400, TOO_DEEP)
        return JSONResponse({"id": runs[0], "runs": runs}, 202)

    async def signal(request: Request) -> JSONResponse:
        run_id, name = request.path_params["run"], request.path_params["name"]

        async def send(payload: Any, sender: str | None) -> dict[str, Any]:
            await client.signal(run_id, name, payload, sender=sender)
            return {"id": run_id, "signal": name}

        return await _answer(request, send)

    async def trigger(request: Request) -> JSONResponse:
        name = request.path_params["name"]

        async def send(payload: Any, sender: str | None) -> dict[str, Any]:
            runs = await client.trigger(name, payload, id=sender)
            return {"signal": name, "runs": [run.id for run in runs]}

        return await _answer(request, send)

    return Starlette(
        routes=[
            Route("/api/runs/{run:path}/signals/{name}", signal, methods=["POST"]),
            Route("/api/signals/{name}", trigger, methods=["POST"]),
            Route("/{path:path}", deliver, methods=["POST"]),
        ]
    )


async def _answer(
    request: Request, send: Callable[[Any, str | None], Awaitable[dict[str, Any]]]
) -> JSONResponse:
    """What comes of a request of who has the token: its JSON, and the sender's own id of it."""
    if not _has_token(request):
        return _error(401, f"expected the token of {TOKEN_FROM} as a bearer token")
    try:
        payload = _json(await _body(request))
        return JSONResponse(await send(payload, request.headers.get("idempotency-key")), 202)
    except Refused as refused:
        return _error(refused.status, refused.reason)
    except (UnknownRun, UnknownSignal, UnknownTrigger) as error:
        return _error(404, str(error))
    except (InvalidSignal, InvalidInput, NotEncodable) as error:
        return _error(422, str(error))
    except PayloadTooLarge as error:
        return _error(413, str(error))
    except (RunEnded, SignalsFull, IdConflict, AlreadyRunning) as error:
        return _error(409, str(error))
    except StoreUnavailable:
        return _error(503, "Redis does not answer: send it again")
    except RecursionError:
        return _error(400, TOO_DEEP)


async def _body(request: Request) -> bytes:
    """The body. Raises Refused where it is too large, or does not come."""
    parts = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            async for part in request.stream():
                parts += part
                if len(parts) > MAX_BODY:
                    raise Refused(413, f"the body is larger than {MAX_BODY:,} bytes")
    except TimeoutError:
        raise Refused(408, f"the body did not come within {PATIENCE:g} s") from None
    except ClientDisconnect:
        raise Refused(400, "the connection was closed") from None
    return bytes(parts)


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body) if body else None
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"expected a body in JSON: {error}") from None


def _has_token(request: Request) -> bool:
    token = os.environ.get(TOKEN_FROM, "")
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    same = hmac.compare_digest(token.encode(), given.encode("utf-8", "replace"))
    return bool(token) and scheme.lower() == "bearer" and same


def _error(status: int, reason: str) -> JSONResponse:
    return JSONResponse({"error": reason}, status)
