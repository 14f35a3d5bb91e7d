"""Wall clocks of processes that a test can set: each jumps when it is told to."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.preload import build

SOURCE = Path(__file__).with_suffix(".c")
BYTES = 8  # of the offset in its file


class WallClock:
    """The clock of the processes that are started with its `variables`; right, until it jumps.

    Skips the test where there is no C compiler.
    """

    def __init__(self, folder: Path) -> None:
        loaded = build(SOURCE, folder)
        self._file = folder / "offset"
        self._file.write_bytes(bytes(BYTES))
        self.variables = {**loaded, "CLOCK_FILE": str(self._file)}

    def set(self, offset: int) -> None:
        """From now on it is off by so many seconds."""
        with self._file.open("r+b") as file:  # in place: it is mapped
            file.write(offset.to_bytes(BYTES, sys.byteorder, signed=True))
