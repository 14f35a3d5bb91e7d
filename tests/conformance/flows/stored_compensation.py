"""The input of a compensation may be in the storage: an output, or what it asks for."""

from __future__ import annotations

from resolute import RunStatus, TerminalError, node
from tests.conformance.case import Case, builder

TEXT = "y" * 300


@node("undo-plain")
async def undo_plain(text: str) -> int:
    return len(text)


@node("undo-asked")
def undo_asked(text: str) -> int:
    return len(text)


@node("plain")
async def plain() -> str:
    return TEXT


@node("asked")
async def asked() -> int:
    return 1


@node("fail")
async def fail() -> None:
    raise TerminalError("no")


CASE = Case(
    builder("stored-compensation")
    .with_max_payload(100)
    .then(plain.on_error(undo_plain))
    .then(asked.on_error(undo_asked.with_input(lambda s: s[plain] * s[asked])))
    .then(fail)
    .build(),
    status=RunStatus.FAILED,
    error="TerminalError",
    has_storage=True,
    history="""
        1.0 plain completed 1
        2.0 asked completed 1
        3.0 fail failed 1 [TerminalError]
        4.0 asked/undo-asked completed 1 undoes asked
        5.0 plain/undo-plain completed 1 undoes plain
    """,
)
