"""Crash points: the calls to Redis are all found, all reached, and survived in a seeded sample.

`scripts/crash-points` goes through all of them.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from resolute.testing.server import ServerBinary
from tests.faults.gauntlet import Gauntlet, all_points
from tests.faults.points import sites

RECORD = 180.0  # s; it ends when all was reached
SAMPLE = 60.0  # s

# Commands that only look, for a person: nothing waits for them, nothing depends on them.
LOOKS = ("resolute.cli.", "resolute.testing.")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_call_to_redis_is_come_by_and_a_sample_of_their_points_is_survived(
    tmp_path: Path, seed: int, binary: ServerBinary
) -> None:
    """A call that is new has its points by itself; here it fails until something reaches it."""
    recording = Gauntlet(tmp_path / "record", seed, print, binary=binary, partitions=1)
    known = {site for site in sites() if not site.startswith(LOOKS)}
    outcome = asyncio.run(recording.record(known, seconds=RECORD))
    pairs = recording.reached()
    assert (sorted(known - {site for _, site in pairs}), outcome.broken) == ([], []), f"seed {seed}"

    points = all_points(pairs)
    Random(seed).shuffle(points)
    gauntlet = Gauntlet(tmp_path / "run", seed, print, binary=binary, partitions=(1, 3)[seed % 2])
    outcome = asyncio.run(gauntlet.run(points, seconds=SAMPLE))
    assert outcome.broken == [], f"seed {seed}"
    assert len(outcome.fired) > len(outcome.missed)
