"""A flow whose node writes down which run began it, and one that holds a slot meanwhile."""

from __future__ import annotations

from resolute import FlowBuilder, manual, node
from tests.e2e.app import Word, note, opened


@node("rank")
async def rank(word: Word) -> None:
    note("rank", word.text, word.number)


@node("urgent", priority="high")
async def urgent(word: Word) -> None:
    note("rank", word.text, word.number)


@node("occupy", timeout="1m")
async def occupy(word: Word) -> None:
    """Runs until the test lets it go."""
    note("occupy", word.text)
    await opened(word.text)


ranked = FlowBuilder("ranked", input=Word).triggered_by(manual("test")).then(rank).build()
hurried = FlowBuilder("hurried", input=Word).triggered_by(manual("test")).then(urgent).build()
occupying = FlowBuilder("occupying", input=Word).triggered_by(manual("test")).then(occupy).build()
