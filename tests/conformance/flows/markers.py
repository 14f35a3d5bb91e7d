"""Markers stand for outputs and parts of the input, wherever an input is given."""

from __future__ import annotations

from typing import Any

import msgspec

from resolute import input_data, node, output
from tests.conformance.case import Case, builder


class Vpc(msgspec.Struct, rename="camel"):
    vpc_id: str
    zones: list[str]


class Subnet(msgspec.Struct):
    vpc: str
    zone: str
    size: int = 8


@node("make-vpc", output="vpc")
async def make_vpc(order: dict[str, Any]) -> Vpc:
    return Vpc("vpc-1", ["a", "b"])


@node("add")
async def add(subnet: Subnet) -> str:
    return f"{subnet.vpc}/{subnet.zone}/{subnet.size}"


@node("tag")
async def tag(zone: str) -> str:
    return zone.upper()


@node("join")
async def join(found: list[Any]) -> list[Any]:
    return found


CASE = Case(
    builder("markers", input=dict[str, Any])
    .then(make_vpc)
    .then_parallel(
        "subnets",
        add.with_input(Subnet(output("vpc.vpc_id"), output("vpc.zones.0"))).as_("first"),
        add.with_input(Subnet("x", output("vpc.zones.1"), input_data("size.0"))).as_("second"),
    )
    .then_each("tags", tag, items=output("vpc.zones"))
    .then(join.with_input((output("first"), [output("second")], output("tags.1"))))
    .build(),
    input={"size": [16]},
    output=["vpc-1/a/8", ["x/b/16"], "B"],
    history="""
        1.0 make-vpc completed 1
        2.0 subnets/add completed 1
        2.1 subnets/add completed 1
        3.0 tags.items completed 1
        4.0 tags/tag completed 1
        4.1 tags/tag completed 1
        5.0 join completed 1
    """,
)
