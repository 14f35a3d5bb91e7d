"""Calls of the test's API, from workers that each say who they are."""

from __future__ import annotations

import msgspec

from resolute import FlowBuilder, manual
from resolute.http import HttpApi, env

api = HttpApi(
    "api",
    base_url=env("TEST_API"),
    headers={"X-Worker": env("TEST_WORKER"), "X-Token": env("TEST_TOKEN")},
    rate_limit="1000/s",
    health="/status",
)


class Ask(msgspec.Struct):
    number: int


ask = api.get("ask", "/ask/{number}", input=Ask, returns=int)
provider = api.provider()

asking = FlowBuilder("calling", input=Ask).triggered_by(manual()).then(ask).build()
