"""Crash points: the calls to Redis are all found, all reached, and survived in a seeded sample.

`scripts/crash-points` goes through all of them.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from resolute.testing.server import ServerBinary
from tests.faults.gauntlet import Gauntlet
from tests.faults.points import sites

RECORD = 180.0  # s; it ends when all was reached
SAMPLE = 50.0  # s

# Commands that only look, for a person: nothing waits for them, nothing depends on them.
LOOKS = ("resolute.cli.", "resolute.testing.")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_call_to_redis_is_come_by_and_a_sample_of_their_points_is_survived(
    tmp_path: Path, seed: int, binary: ServerBinary
) -> None:
    """A call that is new has its points by itself; here it fails until something reaches it."""
    known = {site for site in sites() if not site.startswith(LOOKS)}
    gauntlet = Gauntlet(tmp_path, seed, print, binary=binary, partitions=(1, 3)[seed % 2])
    outcome = asyncio.run(gauntlet.run(known, recording=RECORD, seconds=SAMPLE))
    assert (sorted(outcome.never), outcome.broken) == ([], []), f"seed {seed}"
    assert len(outcome.fired) > len(outcome.missed)
