"""What doctor says: findings with a severity and what to do."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from resolute.cli.exits import Exit


class Severity(StrEnum):
    """`unsuitable` is a problem of a server that must not keep flows at all."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"
    UNSUITABLE = "unsuitable"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at. `advice` is empty where nothing is to be done."""

    check: str
    severity: Severity
    text: str
    advice: str = ""


def exit_code(findings: Iterable[Finding]) -> Exit:
    """0 healthy (warnings are no illness), 1 problems, 2 an unsuitable server."""
    found = {finding.severity for finding in findings}
    if Severity.UNSUITABLE in found:
        return Exit.UNUSABLE
    return Exit.FAILED if Severity.PROBLEM in found else Exit.OK
