"""An output that no codec can put on the wire is final."""

from __future__ import annotations

from typing import Any

from resolute import RunStatus, node
from tests.conformance.case import Case, builder


@node("strange")
async def strange() -> Any:
    return {"inside": [object()]}


CASE = Case(
    builder("not-encodable").then(strange).build(),
    status=RunStatus.FAILED,
    error="NotEncodable",
    history="1.0 strange failed 1 [NotEncodable]",
)
