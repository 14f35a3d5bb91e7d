"""Dead letters as a client sees them: what nobody could use, whose it was, and where it goes."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence

import msgspec

from resolute.client.directory import Directory
from resolute.errors import ResoluteError, UnknownLetter
from resolute.model.messages import Entry, Event
from resolute.status import Code
from resolute.store import dead
from resolute.store.dead import Letter
from resolute.store.keys import Partition
from resolute.store.nodes import MAX_ITEMS
from resolute.store.store import Store

READABLE = 4_096  # bytes; no entry and no event that we write is longer
SEARCHED = 1_000  # letters of a partition among which those of a run are looked for

_ID = re.compile(r"(0|[1-9][0-9]{0,3})-([0-9]{1,18}-[0-9]{1,18})")

_decode_entry = msgspec.msgpack.Decoder(Entry).decode
_decode_event = msgspec.msgpack.Decoder(Event).decode


class DeadLetter(msgspec.Struct, frozen=True):
    """Something that nobody could use.

    `id` is its partition and its stream id there; `buried` is seconds of Unix time by Redis's
    clock; `origin` is the queue that it came from, or "inbox" (of a queue named so, "inbox@").
    `content`, `run` and `node` say what it was, where its raw bytes can be read. `raw` is there
    where one letter was asked for.
    """

    id: str
    buried: float
    origin: str
    why: str
    size: int
    run: str = ""
    node: str = ""
    content: Entry | Event | None = None
    raw: bytes | None = None


def parse_letter_id(text: str) -> tuple[int, str]:
    """The partition and the stream id. Raises ValueError for what is no such id."""
    match = _ID.fullmatch(text)
    if match is None:
        raise ValueError(f"dead letter: expected an id such as 0-1700000000000-0, got {text!r}")
    return int(match[1]), match[2]


class Letters:
    """The dead letters of a namespace, in all its partitions."""

    def __init__(self, store: Store, directory: Directory) -> None:
        self._store = store
        self._directory = directory

    async def newest(self, limit: int) -> list[DeadLetter]:
        """Letters, newest first."""
        found: list[tuple[Partition, Letter]] = []
        for partition in self._partitions():
            letters = await dead.read_letters(self._store, partition, count=limit, cut=READABLE)
            found += [(partition, letter) for letter in letters]
        found.sort(key=lambda one: (_place(one[1]), one[0].number), reverse=True)
        return [await self._tell(partition, letter) for partition, letter in found[:limit]]

    async def get(self, id: str) -> DeadLetter:
        """One letter, with all its raw bytes. Raises UnknownLetter, ValueError."""
        for partition, (entry,) in self._by_partition([id]).items():
            for letter in await self._read(partition, entry, cut=-1):
                told = await self._tell(partition, letter)
                return msgspec.structs.replace(told, raw=letter.raw)
        raise UnknownLetter(id)

    async def of_run(self, run_id: str) -> list[DeadLetter]:
        """The letters that were for a run, newest first, if they are not very old."""
        partition = self._store.keys.of(run_id)
        letters = await dead.read_letters(
            self._store, partition, count=SEARCHED, cut=READABLE, about=run_id
        )
        told = [await self._tell(partition, letter) for letter in letters]
        return [letter for letter in told if letter.run == run_id]

    async def retry(self, ids: Sequence[str]) -> list[str]:
        """Put letters back where they came from; those that were there.

        Raises ValueError, and ResoluteError for a letter that does not say where that was.
        """
        wanted: dict[Partition, list[tuple[str, str]]] = {}
        for partition, entries in self._by_partition(ids).items():
            for entry in entries:
                for letter in await self._read(partition, entry):
                    stream = dead.stream_of(partition, letter.origin)
                    if stream is None:
                        name = _id(partition, entry)
                        raise ResoluteError(
                            f"dead letter {name!r} does not say where it came from: drop it"
                        )
                    wanted.setdefault(partition, []).append((entry, stream))
        done: set[str] = set()
        for partition, letters in wanted.items():
            done |= await self._retry(partition, letters)
        return [letter_id for letter_id in dict.fromkeys(ids) if letter_id in done]

    async def drop(self, ids: Sequence[str]) -> list[str]:
        """Forget letters; those that were there. Raises ValueError."""
        done: set[str] = set()
        for partition, entries in self._by_partition(ids).items():
            done |= await self._drop(partition, entries)
        return [letter_id for letter_id in dict.fromkeys(ids) if letter_id in done]

    async def retry_all(self) -> list[str]:
        """Put every letter that is there now back, the oldest first; which they were.

        A letter that does not say where it came from stays.
        """
        done: list[str] = []
        for partition in self._partitions():
            async for page in self._oldest_first(partition):
                streams = [(p.entry, dead.stream_of(partition, p.origin)) for p in page]
                back = await self._retry(
                    partition, [(e, stream) for e, stream in streams if stream]
                )
                done += [i for i in (_id(partition, p.entry) for p in page) if i in back]
        return done

    async def drop_all(self) -> list[str]:
        """Forget every letter that is there now; which they were."""
        done: list[str] = []
        for partition in self._partitions():
            async for page in self._oldest_first(partition):
                gone = await self._drop(partition, [letter.entry for letter in page])
                done += [i for i in (_id(partition, p.entry) for p in page) if i in gone]
        return done

    async def _oldest_first(self, partition: Partition) -> AsyncGenerator[list[Letter]]:
        """Pages of what is there now: not what dies again because it was retried."""
        newest = await dead.read_letters(self._store, partition, count=1)
        after = "-"
        while newest:
            page = await dead.read_letters(
                self._store, partition, first=after, last=newest[0].entry, newest_first=False,
                count=MAX_ITEMS,
            )  # fmt: skip
            if not page:
                return
            yield page
            after = f"({page[-1].entry}"

    async def _retry(self, partition: Partition, letters: Sequence[tuple[str, str]]) -> set[str]:
        codes = await dead.retry_letters(self._store, partition, letters)
        return _done(partition, [entry for entry, _ in letters], codes)

    async def _drop(self, partition: Partition, letters: Sequence[str]) -> set[str]:
        codes = await dead.drop_letters(self._store, partition, letters)
        return _done(partition, letters, codes)

    def _partitions(self) -> Sequence[Partition]:
        return self._store.keys.partitions

    def _by_partition(self, ids: Sequence[str]) -> dict[Partition, list[str]]:
        """Where letters would be, each once. Raises ValueError."""
        found: dict[Partition, list[str]] = {}
        for number, entry in map(parse_letter_id, dict.fromkeys(ids)):
            if number < len(self._partitions()):
                found.setdefault(self._partitions()[number], []).append(entry)
        return found

    async def _read(self, partition: Partition, entry: str, cut: int = 0) -> Sequence[Letter]:
        return await dead.read_letters(
            self._store, partition, first=entry, last=entry, count=1, cut=cut
        )

    async def _tell(self, partition: Partition, letter: Letter) -> DeadLetter:
        content = _decode(letter)
        return DeadLetter(
            id=_id(partition, letter.entry),
            buried=_place(letter)[0] / 1000,
            origin=letter.origin,
            why=letter.why,
            size=letter.size,
            run=content.flow if content else "",
            node=await self._node_name(content) if isinstance(content, Entry) else "",
            content=content,
        )

    async def _node_name(self, entry: Entry) -> str:
        """The node that an entry is for; '' where its plan does not say."""
        try:
            plan = await self._directory.plan(entry.plan)
            node = plan.node(entry.pc, entry.index) if plan else None
        except (LookupError, ResoluteError, ValueError):
            return ""
        if node is None:
            return ""
        return node.compensation.name if entry.undo and node.compensation else node.name


def _decode(letter: Letter) -> Entry | Event | None:
    """What a letter says, if that can be read."""
    try:
        decode = _decode_event if letter.origin == dead.INBOX else _decode_entry
        return decode(letter.raw)
    except ValueError:
        return None


def _id(partition: Partition, entry: str) -> str:
    return f"{partition.number}-{entry}"


def _place(letter: Letter) -> tuple[int, int]:
    """When it was buried, in ms, and its number among those of that moment."""
    ms, _, number = letter.entry.partition("-")
    return int(ms), int(number)


def _done(partition: Partition, letters: Sequence[str], codes: Sequence[str]) -> set[str]:
    return {
        _id(partition, letter)
        for letter, code in zip(letters, codes, strict=True)
        if code == Code.OK
    }
