"""An output that does not fit the declared type, constraints included, is final."""

from __future__ import annotations

from typing import Annotated

import msgspec

from resolute import RunStatus, node
from tests.conformance.case import Case, builder


@node("count")
def count() -> Annotated[int, msgspec.Meta(ge=0)]:
    return -1


CASE = Case(
    builder("wrong-output-type").then(count).build(),
    status=RunStatus.FAILED,
    error="ValidationError",
    history="1.0 count failed 1 [ValidationError]",
)
