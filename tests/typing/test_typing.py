"""Types tell: wrong flows are found by two type checkers, and the examples pass the second too.

The first one, basedpyright in its strict mode, checks the whole project in `scripts/check`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

ROOT = Path(__file__).parents[2]
WRONG = Path(__file__).parent / "wrong_flows.py"

pytestmark = pytest.mark.timeout(600)


def mypy(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mypy", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def found_by_mypy(_: Path) -> set[int]:
    done = mypy("--strict", "--no-pretty", WRONG)
    rows = [line.split(":") for line in done.stdout.splitlines() if ": error:" in line]
    assert rows, done.stdout + done.stderr
    return {int(row[1]) for row in rows}


def found_by_pyright(folder: Path) -> set[int]:
    """With a configuration of its own, since that of the project leaves this file out."""
    paths = [str(ROOT), str(ROOT / "worker")]
    told = {"include": [str(WRONG)], "typeCheckingMode": "strict", "extraPaths": paths}
    config = folder / "pyrightconfig.json"
    config.write_bytes(msgspec.json.encode(told))
    command = [sys.executable, "-m", "basedpyright", "--project", str(config)]
    command += ["--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    answer: dict[str, Any] = msgspec.json.decode(done.stdout)
    rows = answer["generalDiagnostics"]
    return {row["range"]["start"]["line"] + 1 for row in rows if row["severity"] == "error"}


def wrong_lines() -> set[int]:
    lines = WRONG.read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}


@pytest.mark.parametrize("found", [found_by_mypy, found_by_pyright])
def test_what_is_wrong_in_a_flow_is_a_type_error_and_nothing_else_is(
    found: Callable[[Path], set[int]], tmp_path: Path
) -> None:
    assert len(wrong_lines()) >= 10
    assert found(tmp_path) == wrong_lines()


def test_the_examples_pass_mypy_too() -> None:
    done = mypy()
    assert done.returncode == 0, done.stdout + done.stderr
