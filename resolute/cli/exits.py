"""How a command ends: an exit code that a script can use, and one clear line on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Any, NoReturn

import click

from resolute.errors import (
    AlreadyRunning,
    ConfigurationError,
    DurabilityNotConfirmed,
    IdConflict,
    InvalidInput,
    InvalidSignal,
    NotEncodable,
    PayloadTooLarge,
    QueryTimeout,
    ResoluteError,
    StorageUnavailable,
    StoreError,
    StoreUnavailable,
    UnknownFlow,
    UnknownLetter,
    UnknownQuery,
    UnknownRun,
    UnknownSignal,
    UnknownTrigger,
)
from resolute.testing.server import ServerFailed, ServerNotFound


class Exit(IntEnum):
    """The exit codes; `resolute --help` documents them."""

    OK = 0
    FAILED = 1
    UNUSABLE = 2
    UNKNOWN = 3
    CONFLICT = 4
    TIMEOUT = 124
    INTERRUPTED = 130


_UNUSABLE = (
    ConfigurationError, StoreUnavailable, StoreError, InvalidInput, NotEncodable, PayloadTooLarge,
    StorageUnavailable, InvalidSignal, ServerNotFound, ServerFailed, DurabilityNotConfirmed,
)  # fmt: skip


def code_of(error: BaseException) -> Exit:
    """The exit code that an expected error stands for."""
    match error:
        case UnknownRun() | UnknownFlow() | UnknownLetter():
            return Exit.UNKNOWN
        case UnknownSignal() | UnknownTrigger() | UnknownQuery():
            return Exit.UNKNOWN
        case QueryTimeout():
            return Exit.TIMEOUT
        case IdConflict() | AlreadyRunning():
            return Exit.CONFLICT
        case _:
            return Exit.UNUSABLE if isinstance(error, _UNUSABLE) else Exit.FAILED


def say_error(text: str) -> None:
    """``error: ...`` on stderr."""
    click.echo(f"error: {text}", err=True)


def fail(text: str, code: Exit = Exit.FAILED) -> NoReturn:
    """End the command with a message. Raises SystemExit."""
    say_error(text)
    sys.exit(code)


def guarded(command: Callable[[], Any]) -> NoReturn:
    """Run `command` and exit; what it raises on purpose becomes a message and a code."""
    try:
        code = command()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(Exit.UNUSABLE)
    except click.UsageError as error:
        where = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        fail(error.format_message().rstrip(".") + where, Exit.UNUSABLE)
    except click.ClickException as error:
        fail(error.format_message(), Exit(error.exit_code))
    except click.Abort:
        sys.exit(Exit.INTERRUPTED)
    except (ResoluteError, ServerNotFound, ServerFailed) as error:
        fail(str(error), code_of(error))
    sys.exit(code if isinstance(code, int) else Exit.OK)
