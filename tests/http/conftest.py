"""A real API on loopback, and calls of it as a node makes them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from resolute import AsyncNode, FlowBuilder, RetryPolicy, manual
from resolute.errors import ErrorInfo
from resolute.http import HttpApi
from resolute.testing import FlowTester
from tests.support.api import Api, serving


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with serving() as found:
        yield found


ONCE = RetryPolicy(max_attempts=1)


class Calls:
    """Runs nodes in flows of their own."""

    def __init__(self, api: Api) -> None:
        self._api = api

    def http(self, **options: Any) -> HttpApi:
        """An HttpApi of the test's server."""
        given: dict[str, Any] = {"base_url": self._api.url, "retry": ONCE, **options}
        return HttpApi("api", **given)

    def output(self, node: AsyncNode[Any, Any], value: Any = None) -> Any:
        """What a node returns."""
        return self._run(node, value).output

    def error(self, node: AsyncNode[Any, Any], value: Any = None) -> ErrorInfo:
        """What it fails with."""
        found = self._run(node, value).error
        assert found is not None
        return found

    def _run(self, node: AsyncNode[Any, Any], value: Any) -> Any:
        flow = FlowBuilder("call", input=node.input_type).triggered_by(manual()).then(node).build()
        return FlowTester().run(flow, value)


@pytest.fixture
def calls(api: Api) -> Calls:
    return Calls(api)
