"""Flows whose nodes are limited in how many run at one time."""

from __future__ import annotations

import asyncio

from resolute import ConcurrencyLimit, FlowBuilder, manual, node
from tests.e2e.app import Word, note, opened

SEATS, STAYS, OF_A_TENANT = 3, 2, 1


@node("seat", concurrency=ConcurrencyLimit("seats", SEATS))
async def seat(word: Word) -> None:
    note("sit", "all", word.text)
    await asyncio.sleep(0.01)  # in a node
    note("rise", "all", word.text)


def tenant_of(word: Word) -> str:
    return f"tenant-{word.number % 4}"


@node(
    "shared",
    concurrency=(
        ConcurrencyLimit("tenant", OF_A_TENANT, key=tenant_of),
        ConcurrencyLimit("seats", SEATS),
    ),
)
def shared(word: Word) -> None:
    note("sit", tenant_of(word), word.text)
    note("rise", tenant_of(word), word.text)


@node("stay", timeout="1m", concurrency=ConcurrencyLimit("stays", STAYS))
async def stay(word: Word) -> None:
    """Runs until the test lets it go."""
    note("sit", "stays", word.text)
    await opened(word.text)
    note("rise", "stays", word.text)


seated = FlowBuilder("seated", input=Word).triggered_by(manual("test")).then(seat).build()
sharing = FlowBuilder("sharing", input=Word).triggered_by(manual("test")).then(shared).build()
staying = FlowBuilder("staying", input=Word).triggered_by(manual("test")).then(stay).build()
