"""`scripts/crash-points`: every crash point, of every call to Redis, in every program."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.faults.gauntlet import Gauntlet
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
    began = time.monotonic()
    gauntlet = Gauntlet(folder, seed, _say, partitions=partitions)
    outcome = asyncio.run(gauntlet.run(known, recording=RECORD, seconds=minutes * 60))
    fired, missed = len(outcome.fired), len(outcome.missed)
    _say(
        f"points: seed {seed}, {fired} fired, {missed} nobody came by,"
        f" {len(outcome.points) - fired - missed} not tried; {outcome.runs} runs judged;"
        f" {time.monotonic() - began:.0f} s"
    )
    for site in sorted(outcome.never):
        _say(f"NOT REACHED {site}")
    for one in outcome.broken:
        _say(f"BROKEN {one}")
    if outcome.broken or outcome.never:
        _say(f"points: broken, seed {seed}; the oracle and the logs are in {folder}")
        sys.exit(1)


def _say(line: str) -> None:
    click.echo(line)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
