"""An output above 1 MiB is final."""

from __future__ import annotations

from resolute import RunStatus, node
from tests.conformance.case import Case, builder


@node("large")
async def large() -> bytes:
    return bytes(1024 * 1024 + 1)


CASE = Case(
    builder("payload-too-large").then(large).build(),
    status=RunStatus.FAILED,
    error="PayloadTooLarge",
    history="1.0 large failed 1 [PayloadTooLarge]",
)
