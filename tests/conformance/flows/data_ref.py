"""A DataRef is passed by reference: only who needs the value loads it, as the type declared."""

from __future__ import annotations

import msgspec

from resolute import DataRef, current, node
from tests.conformance.case import Case, builder


class Document(msgspec.Struct):
    title: str
    body: bytes


class Titled(msgspec.Struct):
    title: str
    document: DataRef[Document]


@node("fetch")
async def fetch() -> Titled:
    document = Document("long", b"z" * 5000)
    return Titled(document.title, await current().store(document))


@node("pass-on")
async def pass_on(found: Titled) -> Titled:
    return found


@node("measure")
async def measure(found: Titled) -> int:
    return len((await found.document.load()).body)


@node("measure-sync")
def measure_sync(found: Titled) -> int:
    again = current().store_sync(found.document.load_sync())
    return len(again.load_sync().body)


CASE = Case(
    builder("data-ref")
    .then(fetch)
    .then(pass_on)
    .then_parallel("sizes", measure, measure_sync)
    .build(),
    output={"measure": 5000, "measure-sync": 5000},
    has_storage=True,
    history="""
        1.0 fetch completed 1
        2.0 pass-on completed 1
        3.0 sizes/measure completed 1
        3.1 sizes/measure-sync completed 1
    """,
)
