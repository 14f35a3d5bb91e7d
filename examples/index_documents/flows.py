"""Keep a search index up to date, with few runs for many edits.

Edits of one document that follow each other are one run, with the last text; a rebuild of the whole
index is never beside another one:

    resolute dev examples/index_documents/flows.py
    resolute trigger edited --payload '{"doc": "d-1", "text": "first"}'
    resolute trigger edited --payload '{"doc": "d-1", "text": "second"}'
    resolute start rebuild-index --unique all --if-running replace
    resolute ls

The first two print the same id; the run begins a second after the last one, 10 s after the first
at the latest. A rebuild that is replaced puts the old index back before the next one begins. At
night it is rebuilt anyway, unless the rebuild of the night before still runs.
"""

from __future__ import annotations

import asyncio

import msgspec

from resolute import Debounce, FlowBuilder, input_data, manual, node, schedule, signal


class Edit(msgspec.Struct):
    """What a document says now."""

    doc: str
    text: str


class Rebuild(msgspec.Struct):
    """Of how many documents, and for how long each takes (s)."""

    documents: int = 100
    pause: float = 0.01


@node("index")
async def index(edit: Edit) -> str:
    return f"{edit.doc}: {edit.text}"


@node("restore-old-index")
async def restore_old_index(rebuild: Rebuild) -> str:
    return "the old index is back"


@node("take-old-index-away")
async def take_old_index_away(rebuild: Rebuild) -> Rebuild:
    return rebuild


@node("rebuild", timeout="1h")
async def rebuild_all(rebuild: Rebuild) -> int:
    for _ in range(rebuild.documents):
        await asyncio.sleep(rebuild.pause)
    return rebuild.documents


edits = (
    FlowBuilder("index-edit", input=Edit)
    .triggered_by(signal("edited", debounce=Debounce(input_data("doc"), "1s", max_wait="10s")))
    .then(index)
    .build()
)

rebuilds = (
    FlowBuilder("rebuild-index", input=Rebuild)
    .on_queue("default")
    .triggered_by(manual("operators"))
    .triggered_by(schedule("0 3 * * *", overlap="skip"))
    .then(take_old_index_away.on_error(restore_old_index))
    .then(rebuild_all)
    .build()
)
