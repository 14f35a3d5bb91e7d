"""A classifier says what an error means: again, final, or fatal also where it is best effort."""

from __future__ import annotations

from resolute import RetryPolicy, RunStatus, Verdict, node
from tests.conformance.case import Case, builder


def classify(error: BaseException) -> Verdict | None:
    match error:
        case TimeoutError():
            return "retry"
        case LookupError():
            return "terminal"
        case PermissionError():
            return "fatal"
        case _:
            return None


QUICK = RetryPolicy(initial_interval="10ms", max_attempts=2, non_retryable=(TimeoutError,))


@node("again", retry=QUICK, classify=classify)
async def again() -> None:
    raise TimeoutError


@node("final", retry=QUICK, classify=classify)
async def final() -> None:
    raise KeyError("gone")


@node("fatal", retry=QUICK, classify=classify)
async def fatal() -> None:
    raise PermissionError


CASE = Case(
    builder("classify")
    .then(again.best_effort())
    .then(final.best_effort())
    .then(fatal.best_effort())
    .build(),
    status=RunStatus.FAILED,
    error="PermissionError",
    history="""
        1.0 again failed 2 [TimeoutError]
        2.0 final failed 1 [KeyError]
        3.0 fatal failed 1 [PermissionError]
    """,
)
