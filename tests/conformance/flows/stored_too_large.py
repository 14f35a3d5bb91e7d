"""Without a storage an output above the flow's own limit is refused."""

from __future__ import annotations

from resolute import RunStatus, node
from tests.conformance.case import Case, builder


@node("large")
async def large() -> bytes:
    return bytes(101)


CASE = Case(
    builder("stored-too-large").with_max_payload(100).then(large).build(),
    status=RunStatus.FAILED,
    error="PayloadTooLarge",
    history="1.0 large failed 1 [PayloadTooLarge]",
)
