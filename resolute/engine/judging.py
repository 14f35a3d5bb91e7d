"""What follows from a failed attempt: another one, after how long, or none."""

from __future__ import annotations

import random
from typing import NamedTuple, cast

import msgspec

from resolute.engine.bound import Bound
from resolute.errors import (
    HeartbeatTimeout,
    MissingOutput,
    NodeTimeout,
    NotEncodable,
    PayloadTooLarge,
    RetryAfter,
    TerminalError,
)
from resolute.model.nodes import Node
from resolute.model.plan import NodePlan, RetryPlan

# What another attempt cannot mend.
FINAL_ERRORS = (
    TerminalError,
    NotEncodable,
    PayloadTooLarge,
    MissingOutput,
    msgspec.ValidationError,
)


def retry_delay(plan: NodePlan, attempt: int, error: BaseException) -> int | None:
    """Milliseconds until the next attempt, None where this one (from 1) was the last."""
    policy = plan.retry
    if attempt >= policy.max_attempts or isinstance(error, FINAL_ERRORS):
        return None
    if policy.non_retryable and any(
        kind.__name__ in policy.non_retryable for kind in type(error).__mro__
    ):
        return None
    if isinstance(error, RetryAfter):
        return max(1, round(error.seconds * 1000))
    return backoff_ms(policy, attempt)


class Judgement(NamedTuple):
    """What follows from a failed attempt: ms until the next one, None for none; whether it is
    fatal, for a node that is best effort too; seconds for which nobody may start under its limits.
    """

    delay: int | None
    is_fatal: bool = False
    pause: float | None = None


def judge(bound: Bound, attempt: int, error: BaseException) -> Judgement:
    """What follows from a failed `attempt`. Raises what a classifier does, or TypeError."""
    plan = bound.plan
    classify = bound.binding.classify if isinstance(bound.binding, Node) else None
    verdict = cast("object", classify(error)) if classify is not None else None
    told = verdict if isinstance(verdict, RetryAfter) else error
    pause = told.seconds if isinstance(told, RetryAfter) else None
    if verdict is None:
        return Judgement(retry_delay(plan, attempt, error), pause=pause)
    if verdict in ("terminal", "fatal"):
        return Judgement(None, verdict == "fatal", pause)
    if verdict != "retry" and not isinstance(verdict, RetryAfter):
        raise TypeError(f"classifier of {plan.name!r}: expected a verdict, got {verdict!r}")
    if attempt >= plan.retry.max_attempts:
        return Judgement(None, pause=pause)
    if pause is not None:
        return Judgement(max(1, round(pause * 1000)), pause=pause)
    return Judgement(backoff_ms(plan.retry, attempt))


def backoff_ms(policy: RetryPlan, attempt: int) -> int:
    """How long to wait after the failed `attempt` (from 1): exponential, capped, with jitter."""
    growth = policy.coefficient ** min(attempt - 1, 64)
    span = min(policy.maximum_ms, policy.initial_ms * growth)
    spread = 1 + policy.jitter * random.uniform(-1, 1)
    return max(1, round(span * spread))


def timeout_error(plan: NodePlan) -> NodeTimeout:
    """The error of an attempt that ran longer than its timeout."""
    return NodeTimeout(plan.name, plan.timeout_ms / 1000)


def silence_error(plan: NodePlan) -> HeartbeatTimeout:
    """The error of an attempt that gave no heartbeat in time."""
    return HeartbeatTimeout(plan.name, plan.heartbeat_ms / 1000)
