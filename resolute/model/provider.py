"""Providers: the nodes of one service, under its name and with what they have in common."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from resolute.durations import Duration, milliseconds
from resolute.ids import check_name, check_queue
from resolute.model.classifying import Classifier
from resolute.model.nodes import DEFAULT_TIMEOUT, Node
from resolute.model.policies import (
    ConcurrencyLimit,
    ConcurrencyLimits,
    Limit,
    Limits,
    RateLimit,
    RetryPolicy,
    SharedRateLimit,
    as_concurrency,
    as_limits,
)

# Raises, or returns a text that says what is wrong; a coroutine function or a plain one.
HealthCheck = Callable[[], object]


@dataclass(frozen=True, eq=False)
class Provider:
    """Nodes that belong together: ``Provider("cards", "1.2", [charge, refund])``.

    A node `charge` is offered as `cards.charge`. `rate_limit` is shared by all of them, beside
    those they have, and so is `concurrency`. `timeout`, `retry`, `queue` and `classify` are for
    nodes without their own. `version` is for people: `resolute doctor` shows which ones live.
    `health` is called by each worker process at its start and then every 30 s, for 5 s at most; it
    raises or returns a text when the service is ill. That is for `resolute doctor`, and stops no
    node.
    """

    name: str
    version: str
    nodes: Iterable[Node[Any, Any]]
    rate_limit: Limits = None
    timeout: Duration | None = None
    retry: RetryPolicy | None = None
    queue: str | None = None
    classify: Classifier | None = None
    health: HealthCheck | None = None
    concurrency: ConcurrencyLimits = None

    def __post_init__(self) -> None:
        check_name("provider", self.name)
        check_name("version", self.version)
        if self.queue is not None:
            check_queue(self.queue)
        if self.timeout is not None and milliseconds(self.timeout) < 1:
            raise ValueError(
                f"provider {self.name!r}: expected a timeout above 0, got {self.timeout!r}"
            )
        _check_health(self.name, self.health)
        object.__setattr__(self, "nodes", tuple(self.nodes))
        if not self.offered:
            raise ValueError(f"provider {self.name!r} has no nodes")

    @cached_property
    def offered(self) -> Mapping[str, Node[Any, Any]]:
        """The nodes as they are offered, by their whole name."""
        found: dict[str, Node[Any, Any]] = {}
        for one in self.nodes:
            if one.is_named:
                raise ValueError(f"provider {self.name!r}: the code of {one.name!r} is not here")
            node = self._with_defaults(one)
            if found.setdefault(node.name, node) is not node:
                raise ValueError(f"provider {self.name!r}: two nodes are named {one.name!r}")
        return found

    def __getitem__(self, name: str) -> Node[Any, Any]:
        """One of its nodes, by its name with or without that of the provider. Raises KeyError."""
        found = self.offered.get(self._prefixed(name))
        if found is None:
            there = ", ".join(self.offered)
            raise KeyError(f"provider {self.name!r} has no node {name!r}; it has {there}")
        return found

    def _prefixed(self, name: str) -> str:
        prefix = f"{self.name}."
        return name if name.startswith(prefix) else prefix + name

    def _with_defaults(self, node: Node[Any, Any]) -> Node[Any, Any]:
        is_default = node.timeout == DEFAULT_TIMEOUT
        return replace(
            node,
            name=self._prefixed(node.name),
            timeout=self.timeout if self.timeout is not None and is_default else node.timeout,
            retry=self.retry if self.retry and node.retry == RetryPolicy() else node.retry,
            rate_limit=(*self._limits, *node.limits) or None,
            queue=node.queue or self.queue,
            classify=node.classify or self.classify,
            concurrency=self._places(node) or None,
        )

    def _places(self, node: Node[Any, Any]) -> tuple[ConcurrencyLimit, ...]:
        """Those that a node has under other names, and behind them its own.

        So who waits for a place of the narrower limit takes none of what all nodes share.
        """
        shared = as_concurrency(self.concurrency)
        names = {limit.name for limit in shared}
        return (*(one for one in node.concurrency_limits if one.name not in names), *shared)

    @property
    def _limits(self) -> tuple[Limit, ...]:
        """Its limits, each with one bucket for all its nodes."""
        return tuple(
            self._shared(limit, number) if isinstance(limit, RateLimit) else limit
            for number, limit in enumerate(as_limits(self.rate_limit))
        )

    def _shared(self, limit: RateLimit, number: int) -> SharedRateLimit:
        name = f"provider:{self.name}" + (f":{number}" if number else "")
        return SharedRateLimit(name, limit.n, limit.per, limit.burst, limit.strict, limit.key)


def _check_health(name: str, health: HealthCheck | None) -> None:
    if health is None:
        return
    try:
        inspect.signature(health).bind()
    except TypeError:
        expected = "expected a health check that is called without arguments"
        raise TypeError(f"provider {name!r}: {expected}, got {health!r}") from None
    except ValueError:
        pass  # one in C, whose parameters nobody knows
