"""Nodes, their retries and their limits as the plan has them: milliseconds, names, buckets."""

from __future__ import annotations

from typing import Any

from resolute.durations import milliseconds, seconds
from resolute.model.nodes import Node
from resolute.model.plan import LimitPlan, NodePlan, PlacesPlan, RetryPlan
from resolute.model.policies import Limit, RetryPolicy, SharedRateLimit

STRICT_SLACK = 0.1  # s: how late a start may be, which a strict limit leaves room for


def node_plan(flow: str, node: Node[Any, Any]) -> NodePlan:
    """The node as data."""
    return NodePlan(
        name=node.name,
        key=node.key,
        queue=node.queue or "",
        timeout_ms=milliseconds(node.timeout),
        retry=retry_plan(node.retry),
        limits=tuple(limit_plan(flow, node.name, limit, n) for n, limit in enumerate(node.limits)),
        compensation=node_plan(flow, node.compensation) if node.compensation else None,
        best_effort=node.is_best_effort,
        heartbeat_ms=milliseconds(node.heartbeat) if node.heartbeat is not None else 0,
    )


def retry_plan(policy: RetryPolicy) -> RetryPlan:
    """The policy in milliseconds and names."""
    return RetryPlan(
        initial_ms=milliseconds(policy.initial_interval),
        coefficient=float(policy.backoff_coefficient),
        maximum_ms=milliseconds(policy.maximum_interval),
        max_attempts=policy.max_attempts,
        jitter=float(policy.jitter),
        non_retryable=tuple(error.__name__ for error in policy.non_retryable),
    )


SHARED = "shared:"  # what the bucket of a shared limit begins with


def places_plans(node: Node[Any, Any]) -> tuple[PlacesPlan, ...]:
    """The concurrency limits of a node."""
    return tuple(
        PlacesPlan(limit.name, limit.n, limit.key is not None) for limit in node.concurrency_limits
    )


def limit_plan(flow: str, node: str, limit: Limit, number: int = 0) -> LimitPlan:
    """The limit as a bucket: of one node it has its name (and number), a shared one its own."""
    shared = isinstance(limit, SharedRateLimit)
    rate = limit.rate() if isinstance(limit, SharedRateLimit) else limit
    period = seconds(rate.per)
    if rate.strict:
        burst = rate.burst or max(1, rate.n // 50)
        interval = (period + STRICT_SLACK) / (rate.n + 1 - burst)
    else:
        burst = rate.burst or rate.n
        interval = period / rate.n
    own = f"node:{flow}/{node}" + (f"/{number}" if number else "")
    return LimitPlan(
        bucket=f"{SHARED}{limit.name}" if shared else own,
        interval_us=max(1, round(interval * 1_000_000)),
        burst=burst,
        keyed=rate.key is not None,
    )
