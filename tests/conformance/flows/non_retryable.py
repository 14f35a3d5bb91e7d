"""An error of a type in non_retryable, or of a subclass, is final."""

from __future__ import annotations

from resolute import RetryPolicy, RunStatus, node
from tests.conformance.case import Case, builder


class Refused(LookupError):
    pass


@node("pay", retry=RetryPolicy(non_retryable=(LookupError,)))
async def pay() -> None:
    raise Refused("no such account")


CASE = Case(
    builder("non-retryable").then(pay).build(),
    status=RunStatus.FAILED,
    error="Refused",
    history="1.0 pay failed 1 [Refused]",
)
