"""Libraries in C that a test loads into a process, built where they are needed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def why_not() -> str:
    """Why no library can be preloaded here; empty where it can."""
    if not sys.platform.startswith("linux"):
        return "LD_PRELOAD is Linux's"
    return "" if shutil.which("cc") else "there is no C compiler (cc) to build it with"


def build(source: Path, folder: Path) -> dict[str, str]:
    """Build a library in `folder`; the variables of a process that is to load it.

    Skips the test where that cannot be done.
    """
    if why_not():
        pytest.skip(f"{source.name}: {why_not()}")
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / f"{source.stem}.so"
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return {"LD_PRELOAD": str(library)}
