"""The command line against the server of a system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.system import ROOT, System


def resolute(system: System, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`resolute ...`, to its end."""
    program = Path(sys.executable).parent / "resolute"
    return subprocess.run(
        [program, *arguments], env=system.environment(), cwd=ROOT, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
