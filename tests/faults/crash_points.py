"""`scripts/crash-points`: every crash point, of every call to Redis, in every program."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

import click

from tests.faults.gauntlet import Gauntlet, all_points
from tests.faults.points import sites
from tests.faults.test_crash_points import LOOKS, RECORD


@click.command(context_settings={"show_default": True})
@click.option("--seed", type=int, default=1, help="Of the order, the load and the delays.")
@click.option("--minutes", type=float, default=0.0, help="At most; 0: until all have fired.")
@click.option("--partitions", type=click.IntRange(1), default=3)
def main(seed: int, minutes: float, partitions: int) -> None:
    """Kill, stop, fail and delay at every call to Redis, and look whether anything was lost."""
    folder = Path(tempfile.mkdtemp(prefix="resolute-points-"))
    known = {site for site in sites() if not site.startswith(LOOKS)}
    recording = Gauntlet(folder / "record", seed, _say, partitions=partitions)
    outcome = asyncio.run(recording.record(known, seconds=RECORD))
    pairs = recording.reached()
    never = known - {site for _, site in pairs}
    points = all_points(pairs)
    Random(seed).shuffle(points)
    programs = Counter(program for program, _ in pairs)
    _say(f"points: seed {seed}, {len(points)} points at {len(pairs)} calls: {dict(programs)}")
    began = time.monotonic()
    gauntlet = Gauntlet(folder / "run", seed, _say, partitions=partitions)
    run = asyncio.run(gauntlet.run(points, seconds=minutes * 60))
    broken = [*outcome.broken, *run.broken]
    left = len(points) - len(run.fired) - len(run.missed)
    _say(
        f"points: {len(run.fired)} fired, {len(run.missed)} nobody came by, {left} not tried;"
        f" {run.runs} runs judged; {time.monotonic() - began:.0f} s"
    )
    for site in sorted(never):
        _say(f"NOT REACHED {site}")
    for one in broken:
        _say(f"BROKEN {one}")
    if broken or never:
        _say(f"points: broken, seed {seed}; the oracle and the logs are in {folder}")
        sys.exit(1)


def _say(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
