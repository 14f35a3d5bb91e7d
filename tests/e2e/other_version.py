"""Another version of the flow `hold`: the same name, another plan."""

from __future__ import annotations

from resolute import FlowBuilder, manual, node
from tests.e2e.app import Word


@node("only")
async def only(word: Word) -> str:
    return "another version"


hold = FlowBuilder("hold", input=Word).triggered_by(manual("test")).then(only).build()
