"""How far a node has come, for the attempt after this one: the field that says it, and its form.

``p:<seq>.<index>`` has [n, ...]: n pages are kept beside it, and what follows says which is next
(`paging`); or [0, value], where a heartbeat told the value.
"""

from __future__ import annotations

from resolute.model.messages import Entry

TOLD = b"\x92\x00"  # what is before the encoded value that a heartbeat told


def progress_field(entry: Entry) -> str:
    return f"p:{entry.seq}.{entry.index}"
