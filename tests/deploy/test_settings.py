"""What the deployment files set, the daemons know."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from resolute.coordinator.main import main as coordinator
from resolute_worker.main import main as worker

DEPLOY = Path(__file__).parents[2] / "deploy"
FILES = [
    path
    for path in sorted(DEPLOY.rglob("*"))
    if path.is_file() and path.suffix in (".yaml", ".service", "")
]


def options(*commands: click.Command) -> list[click.Option]:
    return [p for command in commands for p in command.params if isinstance(p, click.Option)]


KNOWN_FLAGS = {flag for option in options(coordinator, worker) for flag in option.opts} | {"--help"}
KNOWN_VARIABLES = {f"RESOLUTE_{(o.name or '').upper()}" for o in options(coordinator, worker)}


def test_there_are_files_to_check() -> None:
    assert {path.name for path in FILES} >= {"Dockerfile", "resolute-coord.service", "worker.yaml"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_variable_is_read_by_a_daemon(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    named = set(re.findall(r"\bRESOLUTE_[A-Z_]+\b", "\n".join(lines)))
    assert named <= KNOWN_VARIABLES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_flag_of_a_daemon_exists(path: Path) -> None:
    text = path.read_text()
    started = re.findall(r"resolute-(?:coord|worker)\b([^\n]*)|args: \[([^\]]*)\]", text)
    flags = {
        flag for line in map(" ".join, started) for flag in re.findall(r"(?<![\w-])--[a-z-]+", line)
    }
    assert flags <= KNOWN_FLAGS


def test_the_table_of_settings_names_only_what_there_is() -> None:
    rows = re.findall(
        r"^\| `(--[a-z-]+)` \| (?:`(\w+)`)?", (DEPLOY / "README.md").read_text(), re.M
    )
    assert len(rows) >= 8
    assert {flag for flag, _ in rows} <= KNOWN_FLAGS
    assert {variable for _, variable in rows if variable} <= KNOWN_VARIABLES
