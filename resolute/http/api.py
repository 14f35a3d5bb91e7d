"""HttpApi: the calls of an API over HTTP as a provider's typed nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, cast, get_args

from resolute.durations import Duration, seconds
from resolute.engine.context import current
from resolute.errors import ConfigurationError
from resolute.http.calls import Caller, Reading, base_of
from resolute.http.client import HttpClient
from resolute.http.environment import Text, check_headers
from resolute.http.errors import HttpError, http_api_classifier
from resolute.http.paging import Paging
from resolute.http.route import Route
from resolute.http.verbs import Pages, Verb
from resolute.model.classifying import Classifier
from resolute.model.nodes import AsyncNode, Node
from resolute.model.paging import Page, PageRequest, paginate
from resolute.model.policies import Limits, RetryPolicy
from resolute.model.provider import Provider

MAX_ANSWER = 10 * 1024 * 1024  # bytes


class HttpApi:
    """An API whose calls are nodes: ``github = HttpApi("github", base_url="https://…")``.

    `get`, `post`, `put`, `patch`, `delete` and `pages` make nodes, `provider()` is what a worker
    offers. Texts of `base_url`, `headers` and `params` (added to each query) may be `env(...)`.

    `timeout` is for an attempt as a whole, `connect_timeout` and `read_timeout` for what they say
    (between two pieces of an answer); `max_answer` is in bytes. `rate_limit`, `retry`, `queue` and
    `classify` are the provider's. `idempotency_header` carries `current().key` in calls that write,
    None switches it off. `health` is a path that is asked by GET as the provider's health check.

    Raises ValueError for what cannot be meant.
    """

    def __init__(
        self,
        name: str,
        *,
        base_url: Text,
        version: str = "1",
        headers: Mapping[str, Text] | None = None,
        params: Mapping[str, Text] | None = None,
        rate_limit: Limits = None,
        timeout: Duration = "1m",
        connect_timeout: Duration = "5s",
        read_timeout: Duration = "30s",
        retry: RetryPolicy | None = None,
        queue: str | None = None,
        classify: Classifier = http_api_classifier,
        idempotency_header: str | None = "Idempotency-Key",
        max_answer: int = MAX_ANSWER,
        health: str | None = None,
    ) -> None:
        if max_answer < 1:
            raise ValueError(f"max_answer: expected 1 byte or more, got {max_answer}")
        check_headers(headers or {})
        if isinstance(base_url, str):
            base_of(base_url)
        client = HttpClient(seconds(connect_timeout), seconds(read_timeout), max_answer)
        self._caller = Caller(client, base_url, dict(headers or {}), dict(params or {}))
        self._idempotency_header = idempotency_header
        self._health = None
        if health is not None:
            self._health = partial(self._check, Route.of("GET", health, None, ()))
        self._name, self._version = name, version
        self._common: dict[str, Any] = {
            "rate_limit": rate_limit,
            "timeout": timeout,
            "retry": retry,
            "queue": queue,
            "classify": classify,
        }
        self._nodes: dict[str, Node[Any, Any]] = {}
        self._provider: Provider | None = None
        self.get = Verb("GET", self._make)
        self.post = Verb("POST", self._make)
        self.put = Verb("PUT", self._make)
        self.patch = Verb("PATCH", self._make)
        self.delete = Verb("DELETE", self._make)
        self.pages = Pages(self._make_pages)

    def provider(self) -> Provider:
        """The provider of all nodes that were made: put it at the top of the worker's module.

        Make all nodes first: none can be made after it.
        """
        if self._provider is None:
            self._provider = self._provided(self._nodes.values(), self._health)
        return self._provider

    def _provided(
        self, nodes: Iterable[Node[Any, Any]], health: Callable[[], object] | None = None
    ) -> Provider:
        return Provider(self._name, self._version, nodes, health=health, **self._common)

    def _make(
        self, method: str, name: str, path: str, input: Any, returns: Any, query: Iterable[str]
    ) -> Any:
        route = Route.of(method, path, input, query)
        reading = Reading.of(returns)

        async def call(value: Any) -> Any:
            return (await self._caller.ask(route, value, reading, self._own(route))).value

        return self._node(name, call, input, returns)

    def _make_pages(self, name: str, path: str, input: Any, returns: Any, paging: Paging) -> Any:
        """A node by `paginate`, which keeps each page that it has."""
        route = Route.of("GET", path, input, ())
        reading = Reading.of(paging.page)

        async def fetch(value: Any, request: PageRequest) -> Any:
            return await self._caller.page(route, value, reading, paging, request.cursor)

        async def fetch_without_input(request: PageRequest) -> Any:
            return await fetch(None, request)

        fn = cast("Any", fetch_without_input if input is None else fetch)
        (item,) = get_args(returns) or (Any,)
        fn.__annotations__ = {"value": input, "request": PageRequest, "return": Page[item]}
        made = cast("Node[Any, Any]", paginate(name, fn, max_pages=paging.max_pages))
        return self._add(made)

    def _own(self, route: Route) -> dict[str, str]:
        """The headers of this call alone."""
        if not route.writes or self._idempotency_header is None:
            return {}
        return {self._idempotency_header: current().key}

    def _node(self, name: str, call: Callable[[Any], Any], input: Any, returns: Any) -> Any:
        """A node around a function that gets the types as its annotations."""

        async def without_input() -> Any:
            return await call(None)

        fn = cast("Any", without_input if input is None else call)
        fn.__name__ = fn.__qualname__ = name
        fn.__annotations__ = {"return": returns} | ({} if input is None else {"value": input})
        return self._add(AsyncNode(name, fn))

    def _add(self, node: Node[Any, Any]) -> Node[Any, Any]:
        """The node as the provider has it."""
        if self._provider is not None:
            raise ValueError(f"HttpApi {self._name!r}: {node.name!r} is made after provider()")
        if self._nodes.setdefault(node.name, node) is not node:
            raise ValueError(f"HttpApi {self._name!r}: two nodes are named {node.name!r}")
        return self._provided([node])[node.name]

    async def _check(self, route: Route) -> str | None:
        """The health check: what is wrong with the API, if something is."""
        try:
            await self._caller.send(route, None, {})
        except (HttpError, ConfigurationError) as error:
            return str(error)
        return None
