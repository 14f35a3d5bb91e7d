"""Dead letters: entries and events that nobody can use, kept with their raw bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from resolute.errors import StoreError
from resolute.status import Code
from resolute.store.keys import Partition
from resolute.store.nodes import MAX_ITEMS, code_of
from resolute.store.script import (
    GROUP_COORDINATORS,
    GROUP_WORKERS,
    Item,
    KeyList,
    pack,
    pack_item,
)
from resolute.store.store import Store

MAX_DEAD = 10_000  # letters kept in a partition, about
DONE_TTL = 3_600_000  # ms; longer than any call is sent again
INBOX = "inbox"  # the origin of an event
# A queue may be called inbox too. No queue can have this name, and this is what its letters say.
QUEUE_INBOX = "inbox@"


class BuryItem(Item):
    entry: str
    why: str


class LetterItem(Item):
    letter: str
    stream_key: int


class Letter(msgspec.Struct, frozen=True):
    """A dead letter of a partition; `raw` are the first of its `size` raw bytes."""

    entry: str
    origin: str
    why: str
    size: int
    raw: bytes


async def bury_event(store: Store, partition: Partition, entry: str, why: str) -> None:
    """Make an event of the inbox a dead letter. It leaves the inbox."""
    await _bury(store, partition, partition.inbox, GROUP_COORDINATORS, INBOX, [(entry, why)])


async def bury_entries(
    store: Store, partition: Partition, queue: str, entries: Sequence[tuple[str, str]]
) -> None:
    """Make entries, each with the reason, dead letters. They leave their stream.

    `queue` is as the stream is named: with "@plan" where it is one of those.
    """
    origin = QUEUE_INBOX if queue == INBOX else queue
    stream = partition.queue(queue)
    for at in range(0, len(entries), MAX_ITEMS):
        batch = entries[at : at + MAX_ITEMS]
        await _bury(store, partition, stream, GROUP_WORKERS, origin, batch)


async def _bury(
    store: Store,
    partition: Partition,
    stream: str,
    group: str,
    origin: str,
    entries: Sequence[tuple[str, str]],
) -> None:
    items = [pack_item(BuryItem(entry, why)) for entry, why in entries]
    common = pack(group, origin, MAX_DEAD)
    reply = await store.call("bury_entries", [partition.dead, stream], common, items)
    for answer in reply:
        if code_of(answer) == Code.ERROR:  # it stays where it was, and is taken up again
            raise StoreError(f"burying from {stream}: {str(answer[1], 'utf-8', 'replace')}")


def stream_of(partition: Partition, origin: str) -> str | None:
    """The stream that a letter came from; None where it does not say."""
    match origin:
        case "":
            return None
        case "inbox":
            return partition.inbox
        case "inbox@":
            return partition.queue(INBOX)
        case queue:
            return partition.queue(queue)


async def read_letters(
    store: Store,
    partition: Partition,
    *,
    first: str = "-",
    last: str = "+",
    newest_first: bool = True,
    count: int,
    cut: int = 0,
    about: str = "",
) -> list[Letter]:
    """Letters from the id `first` to `last`, with at most `cut` of their raw bytes.

    At most `count` are looked at; with `about`, only those whose raw bytes hold that text are told.
    """
    common = pack(first, last, int(newest_first), count, cut, about)
    return [_letter(*row) for row in await store.call("read_letters", [partition.dead], common)]


def _letter(entry: bytes, origin: bytes, why: bytes, size: int, raw: bytes) -> Letter:
    return Letter(
        str(entry, "ascii"), str(origin, "utf-8", "replace"), str(why, "utf-8", "replace"), size,
        raw,
    )  # fmt: skip


async def retry_letters(
    store: Store, partition: Partition, letters: Sequence[tuple[str, str]]
) -> list[str]:
    """Put letters, each with its stream, back where they came from; OK or GONE for each."""
    return await _remove(store, partition, letters, retried=True)


async def drop_letters(store: Store, partition: Partition, letters: Sequence[str]) -> list[str]:
    """Forget letters; OK or GONE for each."""
    nowhere = [(letter, partition.dead) for letter in letters]
    return await _remove(store, partition, nowhere, retried=False)


async def _remove(
    store: Store, partition: Partition, letters: Sequence[tuple[str, str]], *, retried: bool
) -> list[str]:
    codes: list[str] = []
    for at in range(0, len(letters), MAX_ITEMS):
        keys = KeyList(partition.dead, partition.done(store.nonce()))
        items = [
            pack_item(LetterItem(letter, keys.index(stream)))
            for letter, stream in letters[at : at + MAX_ITEMS]
        ]
        common = pack(int(retried), DONE_TTL)
        reply: Any = await store.call("remove_letters", keys.keys, common, items)
        codes += [code_of(answer) for answer in reply]
    return codes
