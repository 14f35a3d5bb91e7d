"""Wall clocks of processes that a test can set: each jumps when it is told to."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_suffix(".c")
BYTES = 8  # of the offset in its file


@cache
def why_not() -> str:
    """Why no such clock can be had here; empty where it can."""
    if not sys.platform.startswith("linux"):
        return "LD_PRELOAD is Linux's"
    return (
        "" if shutil.which("cc") else "there is no C compiler (cc) to build tests/support/clock.c"
    )


class WallClock:
    """The clock of the processes that are started with its `variables`; right, until it jumps.

    Skips the test where there is no C compiler.
    """

    def __init__(self, folder: Path) -> None:
        if why_not():
            pytest.skip(why_not())
        folder.mkdir(parents=True, exist_ok=True)
        library = folder / "clock.so"
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
        subprocess.run(command, check=True)
        self._file = folder / "offset"
        self._file.write_bytes(bytes(BYTES))
        self.variables = {"LD_PRELOAD": str(library), "CLOCK_FILE": str(self._file)}

    def set(self, offset: int) -> None:
        """From now on it is off by so many seconds."""
        with self._file.open("r+b") as file:  # in place: it is mapped
            file.write(offset.to_bytes(BYTES, sys.byteorder, signed=True))
