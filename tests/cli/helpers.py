"""Calling `resolute` as a user does, and waiting for what it should say."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from click.testing import CliRunner

from resolute.cli.main import main

T = TypeVar("T")

DEADLINE = 60.0  # s; a condition that takes longer is a failure, however slow the machine


def until(look: Callable[[], T | None], what: str) -> T:
    """What `look` answers, once that is true; the only place in these tests that passes time."""
    give_up = time.monotonic() + DEADLINE
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < give_up, f"waited {DEADLINE:g} s until {what}"
        time.sleep(0.02)


class Outcome(msgspec.Struct, frozen=True):
    """How a command ended."""

    code: int
    stdout: str
    stderr: str

    @property
    def data(self) -> Any:
        """What it printed, as JSON."""
        return msgspec.json.decode(self.stdout)


class Cli:
    """`resolute`, told by variables which server and namespace to use."""

    def __init__(self, url: str, namespace: str) -> None:
        self.url = url
        self.namespace = namespace

    def __call__(
        self,
        *arguments: str,
        code: int | None = 0,
        columns: int = 120,
        stdin: str | None = None,
        namespace: str | None = None,
    ) -> Outcome:
        """Run a command, which must end with `code` (None: whichever)."""
        environment = {
            "RESOLUTE_REDIS": self.url,
            "RESOLUTE_NAMESPACE": namespace or self.namespace,
            "COLUMNS": str(columns),
        }
        result = CliRunner().invoke(main, arguments, input=stdin, env=environment)
        outcome = Outcome(result.exit_code, result.stdout, result.stderr)
        # What is raised and not expected would look like code 1.
        assert isinstance(result.exception, SystemExit | None), outcome
        assert code in (None, outcome.code), f"{arguments}: {outcome}\n{result.exc_info}"
        assert "Traceback" not in outcome.stderr.partition("error: ")[2], outcome
        return outcome

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run a command with --json; what it printed."""
        return self(*arguments, "--json", code=code).data

    def start(self, flow: str, *arguments: str) -> str:
        """The id of a new run."""
        return self("start", flow, *arguments).stdout.strip()

    def ended(self, flow: str, *arguments: str, code: int = 0) -> str:
        """The id of a new run that has ended."""
        return self("start", flow, *arguments, "--wait", "--json", code=code).data["id"]


Examine = Callable[[], dict[str, Any]]
"""`resolute doctor --json` on a test's own namespace; what it says."""


def findings(data: dict[str, Any], check: str) -> list[dict[str, Any]]:
    """What doctor found under one name."""
    return [finding for finding in data["findings"] if finding["check"] == check]
