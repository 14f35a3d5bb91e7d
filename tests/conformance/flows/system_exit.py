"""A function that calls sys.exit() ends its attempt, not its worker."""

from __future__ import annotations

import sys

from resolute import RetryPolicy, RunStatus, node
from tests.conformance.case import Case, builder


@node("leave", retry=RetryPolicy(max_attempts=1))
async def leave() -> None:
    sys.exit(3)


CASE = Case(
    builder("system-exit").then(leave).build(),
    status=RunStatus.FAILED,
    error="SystemExit",
    history="1.0 leave failed 1 [SystemExit]",
)
