"""A node that is silent has failed; the attempt after it knows how far it had come."""

from __future__ import annotations

import asyncio

from resolute import RetryPolicy, current, node
from tests.conformance.case import Case, builder

TWICE = RetryPolicy(max_attempts=2, initial_interval="1ms")


@node("copy", heartbeat="200ms", retry=TWICE)
async def copy() -> list[int]:
    first = current().progress(int) or 0
    for row in range(first, 5):
        current().heartbeat(row)
        if row == 3 and current().attempt == 1:
            await asyncio.sleep(60)  # in a node
    return [first, 5]


@node("move", heartbeat="1m", retry=TWICE)
def move(copied: list[int]) -> list[int]:
    found = current().progress(list[int])
    current().heartbeat([*copied, 7])
    if found is None:
        raise ConnectionError("after it had told")
    return found


@node("hasty", retry=RetryPolicy(max_attempts=1))
async def hasty(moved: list[int]) -> list[int]:
    current().heartbeat("nobody will ask")
    raise ConnectionError("too soon")


@node("last")
async def last() -> str:
    return "end"


CASE = Case(
    builder("heartbeat").then(copy).then(move).then(hasty.best_effort()).then(last).build(),
    output="end",
    history="""
        1.0 copy completed 2 [HeartbeatTimeout]
        2.0 move completed 2 [ConnectionError]
        3.0 hasty failed 1 [ConnectionError]
        4.0 last completed 1
    """,
)
