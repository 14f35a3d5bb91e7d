"""A marker whose path is not there fails its node for good, also in a compensation's input."""

from __future__ import annotations

from typing import Any

from resolute import RetryPolicy, RunStatus, input_data, node, output
from tests.conformance.case import Case, builder


@node("reserve")
async def reserve() -> dict[str, Any]:
    return {"id": 1}


@node("release")
async def release(value: list[Any]) -> None:
    if value != [1, "eu"]:
        raise AssertionError(f"got {value}")


@node("notify", retry=RetryPolicy(max_attempts=3))
async def notify(value: Any) -> None: ...


CASE = Case(
    builder("markers-missing")
    .then(reserve.on_error(release.with_input([output("reserve.id"), input_data("region")])))
    .then(notify.with_input(output("reserve.name")))
    .build(),
    input={"region": "eu"},
    status=RunStatus.FAILED,
    error="MissingOutput",
    history="""
        1.0 reserve completed 1
        2.0 notify failed 1 [MissingOutput]
        3.0 reserve/release completed 1 undoes reserve
    """,
)
