"""How far a node has come that fetches page by page. Pure: worker and FlowTester share it.

In the run's hash ``p:<seq>.<index>`` says which page is next, ``p:<seq>.<index>.<n>`` has
the items of those before, or the stub that stands for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from resolute.engine.bound import Bound
from resolute.engine.progress import TOLD, progress_field
from resolute.model import codec
from resolute.model.cursors import Cursor
from resolute.model.messages import Entry
from resolute.model.paging import Pager, PageRequest

_Items = msgspec.msgpack.Decoder(list[msgspec.Raw])


class Progress(msgspec.Struct, frozen=True, array_like=True):
    """The page to fetch next."""

    number: int
    cursor: str


_decode = msgspec.msgpack.Decoder(Progress).decode
_encode = msgspec.msgpack.Encoder().encode


def page_fields(entry: Entry, count: int) -> list[str]:
    """The fields of the first `count` pages."""
    return [f"{progress_field(entry)}.{n}" for n in range(count)]


def request_of(
    bound: Bound, pager: Pager, entry: Entry, values: Sequence[bytes | None]
) -> PageRequest | None:
    """The page that is missing, from the values of the fields of `bound`; None before the first."""
    data = bound.progress(entry, values)
    if data is None:
        return None
    found = _decode(data)
    return PageRequest(found.number, found.cursor, pager.page_size)


def first_request(pager: Pager, cursor: bytes | None) -> PageRequest:
    """The first page; `cursor` is what the flow's cursor has, if there is one."""
    start = Cursor(cursor)
    return PageRequest(0, start.text_or("") if start.is_set else None, pager.page_size)


def pages_kept(progress: bytes) -> int:
    """How many pages are kept, by the progress of a node."""
    return 0 if progress.startswith(TOLD) else _decode(progress).number


def progress_to(request: PageRequest) -> bytes:
    return _encode(Progress(request.number, request.cursor or ""))


def encode_items(items: Sequence[Any], limit: int) -> bytes:
    """The items of a page. Raises NotEncodable, PayloadTooLarge above `limit` bytes."""
    return codec.encode(list(items), max_payload=limit, what="page")


def joined(pages: Sequence[bytes], last: Sequence[Any]) -> list[Any]:
    """The items of all pages; those kept before stay encoded."""
    found: list[Any] = []
    for page in pages:
        found += _Items.decode(page)
    return found + list(last)
