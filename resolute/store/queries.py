"""Queries: an entry in the stream of a run's plan, and an answer under a key of its own.

Nothing of this is kept for long, and nothing depends on it: who asks asks again.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from resolute.model.messages import QUERY, Entry
from resolute.store import streams
from resolute.store.keys import Partition
from resolute.store.nodes import Held
from resolute.store.script import GROUP_WORKERS
from resolute.store.store import Store

ANSWER_TTL = 60  # s


@dataclass(frozen=True, slots=True)
class Question:
    """Query `number` of the flow of a run, asked of the workers that have its plan."""

    partition: Partition
    queue: str
    plan: str
    run: str
    number: int
    nonce: str

    @property
    def channel(self) -> str:
        """Where the answer will be, and be published."""
        return self.partition.answer(self.nonce)


async def ask(store: Store, question: Question) -> str:
    """Put a question into the stream; the id of its entry."""
    q = question
    entry = Entry(q.run, q.plan, QUERY, 0, q.number, q.nonce)
    stream = q.partition.queue(q.queue, q.plan)
    data = msgspec.msgpack.encode(entry)
    return str(await store.execute("XADD", stream, "*", "e", data), "ascii")


async def read_answer(store: Store, question: Question) -> bytes | None:
    """The answer, None where there is none yet."""
    return await store.execute("GET", question.channel)


async def withdraw(store: Store, question: Question, entry: str) -> None:
    """Forget a question that nobody has answered, or the answer that was read."""
    stream = question.partition.queue(question.queue, question.plan)
    await store.execute_all([("XDEL", stream, entry), ("UNLINK", question.channel)])


async def answer(store: Store, held: Held, data: bytes) -> None:
    """Answer a question that a worker was given."""
    key = held.partition.answer(held.entry.token)
    await store.write_all([("SET", key, data, "EX", ANSWER_TTL), ("PUBLISH", key, "")])
    await streams.acknowledge(store, held.stream, GROUP_WORKERS, [held.id])
