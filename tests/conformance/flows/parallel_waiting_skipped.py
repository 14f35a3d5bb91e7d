"""A sibling that waits for its next attempt when the run fails is skipped."""

from __future__ import annotations

import asyncio

from resolute import RetryPolicy, RunStatus, node
from tests.conformance.case import Case, builder


@node("patient", retry=RetryPolicy(initial_interval="1h", maximum_interval="1h"))
async def patient() -> None:
    raise ValueError("later")


@node("broken", retry=RetryPolicy(max_attempts=1))
async def broken() -> None:
    await asyncio.sleep(0.2)
    raise TypeError("now")


CASE = Case(
    builder("parallel-waiting-skipped").then_parallel("both", patient, broken).build(),
    status=RunStatus.FAILED,
    error="TypeError",
    history="""
        1.0 both/patient skipped 1 [ValueError]
        1.1 both/broken failed 1 [TypeError]
    """,
)
