"""An output by reference goes to the storage however small; who hands it on does not load it."""

from __future__ import annotations

import msgspec

from resolute import DataRef, RunStatus, node, output_ref
from tests.conformance.case import Case, builder


class Filed(msgspec.Struct):
    name: str
    docs: DataRef[list[str]]


@node("fetch", output="docs")
async def fetch(name: str) -> list[str]:
    return [name, "b"]


@node("note")
async def note(docs: list[str]) -> int:
    return len(docs)


@node("file")
async def file(filed: Filed) -> Filed:
    return filed


@node("count")
async def count(filed: Filed) -> list[str]:
    return [filed.name, *await filed.docs.load()]


CASE = Case(
    builder("output-ref", input=str)
    .then(fetch)
    .then(note)
    .then(file.with_input({"name": "x", "docs": output_ref("docs")}))
    .then(count)
    .build(),
    input="a",
    has_storage=True,
    status=RunStatus.COMPLETED,
    output=["x", "a", "b"],
    history="""
        1.0 fetch completed 1
        2.0 note completed 1
        3.0 file completed 1
        4.0 count completed 1
    """,
)
