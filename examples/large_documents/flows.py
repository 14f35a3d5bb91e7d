"""Fetch a document of some megabytes, look at it from two sides, and keep a summary.

    resolute start summarise-document --input '{"megabytes": 5}' --wait

The document is larger than what Redis should hold, so it goes to the storage: with `resolute dev` a
folder in .resolute/, in production `--storage s3://bucket/prefix`. `fetch` returns a reference that
travels through the flow in its place; only who needs the text loads it. `split-words` returns more
than the limit by itself, and nothing in it is about that.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from resolute import DataRef, FlowBuilder, FlowState, current, manual, node

WORDS = ("durable", "flows", "for", "python", "on", "redis")


class Request(msgspec.Struct):
    """How large a document to make up."""

    megabytes: int = 5


class Document(msgspec.Struct):
    """What a real `fetch` would have downloaded."""

    title: str
    text: str


class Fetched(msgspec.Struct):
    """A document by reference: the title is at hand, the text is not."""

    title: str
    document: DataRef[Document]


class Summary(msgspec.Struct):
    title: str
    characters: int
    words: int
    most_common: str


@node("fetch")
async def fetch(request: Request) -> Fetched:
    line = " ".join(WORDS) + "\n"
    size = request.megabytes * 1_000_000
    document = Document("made up", (line * (size // len(line) + 1))[:size])
    return Fetched(document.title, await current().store(document))


@node("measure")
async def measure(fetched: Fetched) -> int:
    return len((await fetched.document.load()).text)


@node("split-words")
def split_words(fetched: Fetched) -> list[str]:
    """A plain function; its output is above the limit, so that it goes to the storage by itself."""
    return fetched.document.load_sync().text.split()


@node("summarise")
async def summarise(summary: Summary) -> Summary:
    return summary


def summary_of(state: FlowState) -> Summary:
    counts = Counter(state[split_words])
    return Summary(state[fetch].title, state[measure], counts.total(), counts.most_common(1)[0][0])


flow = (
    FlowBuilder("summarise-document", input=Request)
    .triggered_by(manual())
    .then(fetch)
    .then_parallel("look", measure, split_words)
    .then(summarise.with_input(summary_of))
    .build()
)
