"""How a command ends, whatever ended it."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from resolute import __version__
from resolute.cli.exits import Exit, code_of, guarded
from resolute.cli.main import main
from resolute.coordinator import main as coordinator
from resolute.errors import (
    ConfigurationError,
    DamagedRun,
    IdConflict,
    InvalidInput,
    NotEncodable,
    PayloadTooLarge,
    ResoluteError,
    StoreError,
    StoreUnavailable,
    UnknownFlow,
    UnknownRun,
)
from resolute.testing.server import ServerFailed, ServerNotFound
from resolute_worker import main as worker


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnknownRun("r"), Exit.UNKNOWN),
        (UnknownFlow("f"), Exit.UNKNOWN),
        (IdConflict("r"), Exit.CONFLICT),
        (ConfigurationError("x"), Exit.UNUSABLE),
        (StoreUnavailable("x"), Exit.UNUSABLE),
        (StoreError("x"), Exit.UNUSABLE),
        (InvalidInput("f", "x"), Exit.UNUSABLE),
        (NotEncodable("input", "x"), Exit.UNUSABLE),
        (PayloadTooLarge(2, 1), Exit.UNUSABLE),
        (ServerNotFound("x"), Exit.UNUSABLE),
        (ServerFailed("x"), Exit.UNUSABLE),
        (DamagedRun("r", "x"), Exit.FAILED),
        (ResoluteError("x"), Exit.FAILED),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_expected_error_is_one_line_and_its_code(
    error: Exception, code: Exit, capsys: pytest.CaptureFixture[str]
):
    def command() -> Any:
        raise error

    assert code_of(error) is code
    with pytest.raises(SystemExit) as ended:
        guarded(command)
    assert ended.value.code == code
    assert capsys.readouterr().err == f"error: {error}\n"


@pytest.mark.parametrize(
    ("raised", "code"),
    [(click.Abort(), Exit.INTERRUPTED), (click.ClickException("x"), Exit.FAILED)],
)
def test_what_click_raises_is_a_code_as_well(raised: Exception, code: Exit):
    def command() -> Any:
        raise raised

    with pytest.raises(SystemExit) as ended:
        guarded(command)
    assert ended.value.code == code


def test_what_nobody_expected_is_not_hidden():
    def command() -> Any:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        guarded(command)


def test_without_a_command_there_is_the_help():
    result = CliRunner().invoke(main, [])
    assert (result.exit_code, result.stderr) == (Exit.UNUSABLE, "")
    assert result.stdout.startswith("Usage: ") and "Durable flows for Python" in result.stdout


@pytest.mark.parametrize("program", [main, coordinator.main, worker.main])
@pytest.mark.parametrize("flag", ["-h", "--help", "--version"])
def test_every_program_has_help_and_a_version(program: click.Command, flag: str):
    result = CliRunner().invoke(program, [flag])
    assert result.exit_code == 0
    assert (__version__ if flag == "--version" else "Usage: ") in result.stdout


def test_an_input_that_cannot_be_read_is_told_with_its_name():
    result = CliRunner().invoke(main, ["start", "f", "--input", "@nofile"])
    assert result.exit_code == Exit.UNUSABLE
    assert "--input: cannot read 'nofile': no such file or directory" in result.stderr
