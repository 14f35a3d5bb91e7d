"""Items and outputs of a list above the limit go to the storage, each by itself."""

from __future__ import annotations

from resolute import FlowState, node
from tests.conformance.case import Case, builder

SIZES = [10, 300, 20, 400]


@node("sizes")
async def sizes() -> list[int]:
    return SIZES


@node("double")
async def double(item: bytes) -> bytes:
    return item * 2


def total(state: FlowState) -> list[int]:
    return [len(one or b"") for one in state.iter("parts", bytes)]


@node("measure")
def measure(parts: list[bytes]) -> list[int]:
    return [len(part) for part in parts]


@node("compare")
async def compare(lengths: list[int]) -> list[int]:
    return lengths


CASE = Case(
    builder("stored-lists")
    .with_max_payload(100)
    .then(sizes)
    .then_each("parts", double, items=lambda s: (bytes(n) for n in s[sizes]), max_concurrency=2)
    .then(measure)
    .then(compare.with_input(total))
    .then_each("again", double, items=lambda s: (one or b"" for one in s.iter("parts", bytes)))
    .build(),
    output=[bytes(n * 4) for n in SIZES],
    has_storage=True,
    history="""
        1.0 sizes completed 1
        2.0 parts.items completed 1
        3.0 parts/double completed 1
        3.1 parts/double completed 1
        3.2 parts/double completed 1
        3.3 parts/double completed 1
        4.0 measure completed 1
        5.0 compare completed 1
        6.0 again.items completed 1
        7.0 again/double completed 1
        7.1 again/double completed 1
        7.2 again/double completed 1
        7.3 again/double completed 1
    """,
)
