"""A flow that goes on where it came to."""

from __future__ import annotations

from resolute import FlowBuilder, FlowState, manual, node


@node("count")
async def count(since: int) -> list[int]:
    return [since + 1, since + 2, since + 3]


def since(state: FlowState) -> int:
    return state.cursor("number").int_or(0)


flow = (
    FlowBuilder("count-on")
    .triggered_by(manual())
    .with_state(namespace="counted")
    .then(count.with_input(since).with_cursor("number", "2"))
    .build()
)
