"""Each attempt has an input of its own: what one changed in it, the next does not see."""

from __future__ import annotations

from resolute import RetryPolicy, current, node
from tests.conformance.case import Case, builder


@node("eat", retry=RetryPolicy(initial_interval="10ms", max_attempts=2))
async def eat(basket: list[str]) -> str:
    fruit = basket.pop()
    if current().attempt == 1:
        raise ValueError(fruit)
    return f"{fruit} {len(basket)}"


CASE = Case(
    builder("mutated-input").then(eat.with_input(["apple", "pear"])).build(),
    output="pear 1",
    history="1.0 eat completed 2 [ValueError]",
)
