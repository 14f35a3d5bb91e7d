"""The soak in its short form: all faults, by a seed, for a minute."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from resolute.testing.server import ServerBinary
from tests.faults import nemesis
from tests.faults.chaos import Plan, Soak

SECONDS = 60.0


@pytest.mark.slow
@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_under_all_faults_nothing_is_lost(
    quick_disk: Path, seed: int, binary: ServerBinary
) -> None:
    plan = Plan(
        seconds=SECONDS,
        seed=seed,
        workers=3,
        coordinators=2,
        partitions=3,
        faults=nemesis.chosen("all"),
        open_runs=30,
        binary=binary,
    )
    report = asyncio.run(Soak(plan, quick_disk / "soak", print).run())
    assert report.broken == [], f"seed {seed}"
    assert report.runs > 0
