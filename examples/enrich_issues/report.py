"""What the demo finds out: the effort of each flow, the services' counts, and all that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from examples.enrich_issues.enrichment import EnrichedIssue
from examples.enrich_issues.wire import ServiceStats


class FlowReport(msgspec.Struct, frozen=True):
    """What the runs of one flow came to. `wall_time` and `node_time` (their sum) in seconds."""

    flow: str
    runs: int
    nodes: int
    retries: int
    wall_time: float
    node_time: float
    problems: tuple[str, ...]


class DemoReport(msgspec.Struct, frozen=True):
    """All that the demo found out."""

    flows: tuple[FlowReport, ...]
    services: dict[str, ServiceStats]
    rows: int
    database: Path

    @property
    def http_429(self) -> int:
        return sum(service.http_429 for service in self.services.values())

    @property
    def problems(self) -> list[str]:
        """Everything that is not as it must be; empty where the demo succeeded."""
        found = [problem for flow in self.flows for problem in flow.problems]
        if self.http_429:
            found.append(f"{self.http_429} calls were refused with 429: over a service's limit")
        return found


def compare_rows(
    found: Mapping[int, EnrichedIssue], expected: Mapping[int, EnrichedIssue]
) -> list[str]:
    """How the rows differ from what they must be, an issue a line."""
    problems: list[str] = []
    for number in sorted(found.keys() | expected.keys()):
        if number not in found:
            problems.append(f"issue {number}: no row")
        elif number not in expected:
            problems.append(f"issue {number}: a row, but no such issue")
        elif found[number] != expected[number]:
            problems.append(f"issue {number}: {_difference(found[number], expected[number])}")
    return problems


def _difference(found: EnrichedIssue, expected: EnrichedIssue) -> str:
    fields = (
        (name, getattr(found, name), getattr(expected, name))
        for name in EnrichedIssue.__struct_fields__
    )
    return ", ".join(f"{name} is {f!r}, expected {e!r}" for name, f, e in fields if f != e)
