"""TerminalError is final."""

from __future__ import annotations

from resolute import RunStatus, TerminalError, node
from tests.conformance.case import Case, builder


@node("pay")
def pay() -> None:
    raise TerminalError("the card was stolen")


CASE = Case(
    builder("terminal-error").then(pay).build(),
    status=RunStatus.FAILED,
    error="TerminalError",
    history="1.0 pay failed 1 [TerminalError]",
)
