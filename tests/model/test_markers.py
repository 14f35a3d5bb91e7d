"""Markers in inputs: what they are filled in with, and which `build()` refuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, NamedTuple, NotRequired, TypedDict, TypeVar

import msgspec
import pytest

from resolute import (
    DataRef,
    Flow,
    FlowBuilder,
    FlowDefinitionError,
    FlowState,
    MissingInput,
    MissingOutput,
    Node,
    NotEncodable,
    input_data,
    manual,
    node,
    output,
    output_ref,
)
from resolute.model import codec
from resolute.model.flow import Lister
from resolute.model.templates import Template

T = TypeVar("T")


class Subnet(msgspec.Struct, rename="camel"):
    subnet_id: str
    zone: int = 0


class Vpc(msgspec.Struct):
    name: str
    subnets: list[Subnet] = []
    tags: dict[str, str] | None = None
    pair: tuple[int, str] = (0, "")


class Order(msgspec.Struct):
    region: str = "eu"
    limits: dict[str, int] = {}


class Wanted(msgspec.Struct):
    name: str
    count: Annotated[int, msgspec.Meta(ge=0)] = 0


@dataclass
class Plain:
    name: str


class Named(NamedTuple):
    name: str
    zone: int


class Typed(TypedDict):
    name: str
    zone: NotRequired[int]


class Boxed(msgspec.Struct, Generic[T]):
    inside: T


@node("make-vpc", output="vpc")
async def make_vpc(order: Order) -> Vpc: ...


@node("untyped")
async def untyped(vpc: Vpc) -> Any: ...


@node("svc.charge")
async def dotted(value: Any) -> Vpc: ...


@node("take")
async def take(value: Any) -> Any: ...


@node("take-wanted")
async def take_wanted(wanted: Wanted) -> int: ...


def start() -> FlowBuilder[Order, Vpc]:
    return FlowBuilder("infra", input=Order).triggered_by(manual()).then(make_vpc)


def template(flow: Flow[Any, Any], pc: int = 1) -> Template:
    bound = flow.bindings[pc, 0]
    assert isinstance(bound, Node) and isinstance(bound.input, Template)
    return bound.input


class Kept:
    """The outputs of a run, for a state."""

    def __init__(self, outputs: Mapping[str, Any], input: Any = None) -> None:
        self._outputs = {key: codec.encode(value) for key, value in outputs.items()}
        self._input = codec.encode(input)

    def get(self, key: str) -> bytes | None:
        return self._outputs.get(key)

    def keys(self) -> list[str]:
        return list(self._outputs)

    def input(self) -> bytes:
        return self._input

    def error(self, key: str) -> None:
        return None

    def whole(self, stub: bytes, /) -> bytes:
        raise AssertionError("nothing here is in a storage")


VPC = Vpc("main", [Subnet("s-1", 1), Subnet("s-2", 2)], {"a.b": "no", "team": "x"}, (7, "seven"))
STATE = FlowState(Kept({"vpc": VPC, "svc.charge": Vpc("charged")}, Order(limits={"cpu": 4})))


def filled(value: Any, state: FlowState = STATE) -> Any:
    """What `value` comes to in a run, as it is on the wire."""
    flow = start().then(dotted.with_input(1)).then(take.with_input(value)).build()
    return template(flow, 2).decoded(state)


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (output("vpc.name"), "main"),
        (output("vpc.subnets.1.subnet_id"), "s-2"),
        (output("vpc.tags.team"), "x"),
        (output("vpc.pair.1"), "seven"),
        (output("svc.charge.name"), "charged"),
        (input_data("region"), "eu"),
        (input_data("limits.cpu"), 4),
        (input_data(), {"region": "eu", "limits": {"cpu": 4}}),
        (Wanted(output("vpc.name"), 3), {"name": "main", "count": 3}),
        (Plain(output("vpc.name")), {"name": "main"}),
        (Named(output("vpc.name"), 1), ["main", 1]),
        (Typed(name=output("vpc.name")), {"name": "main"}),
        (
            [1, (output("vpc.name"),), {"deep": [input_data("region")]}],
            [1, ["main"], {"deep": ["eu"]}],
        ),
        ({output("vpc.name")}, ["main"]),
        (Boxed(Boxed(output("vpc.pair"))), {"inside": {"inside": [7, "seven"]}}),
        (Subnet(output("vpc.name")), {"subnetId": "main", "zone": 0}),
        ([output("vpc.name"), output("vpc.name")], ["main", "main"]),
    ],
)  # fmt: skip
def test_a_marker_stands_for_its_value_anywhere_in_an_input(value: Any, found: Any) -> None:
    assert filled(value) == found


def test_a_whole_output_is_passed_on_as_it_is_stored() -> None:
    flow = start().then(take.with_input(output("vpc"))).build()
    assert bytes(template(flow)(STATE)) == codec.encode(VPC)


def test_an_input_without_markers_stays_a_value() -> None:
    flow = start().then(take.with_input({"a": 1})).build()
    bound = flow.bindings[1, 0]
    assert isinstance(bound, Node) and bound.input == {"a": 1}


def problems_of(builder: FlowBuilder[Any, Any]) -> list[str]:
    with pytest.raises(FlowDefinitionError) as caught:
        builder.build()
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (
            output("vcp.name"),
            "output('vcp.name'): no output of that key is there by then; there: vpc",
        ),
        (
            output("take-wanted"),
            "output('take-wanted'): no output of that key is there by then; there: vpc",
        ),
        (
            output("vpc.nme"),
            "output('vpc.nme'): output 'vpc' is Vpc, which has no 'nme' but name, subnets, tags,"
            " pair",
        ),
        (
            output("vpc.subnets.first"),
            "output('vpc.subnets.first'): output 'vpc' at subnets.first is"
            " list[tests.model.test_markers.Subnet], which has no 'first' but indices",
        ),
        (
            output("vpc.pair.2"),
            "output('vpc.pair.2'): output 'vpc' at pair.2 is tuple[int, str], which has no '2'",
        ),
        (
            output("vpc.name.first"),
            "output('vpc.name.first'): output 'vpc' at name.first is str, which has no 'first'",
        ),
        (
            input_data("zone"),
            "input_data('zone'): the input is Order, which has no 'zone' but region, limits",
        ),
    ],
)
def test_a_path_that_cannot_be_is_an_error_of_the_flow(value: Any, problem: str) -> None:
    found = problems_of(start().then(take_wanted.with_input(Wanted(value))))
    assert found == [f"node 'take-wanted': its input.name: {problem}"]


def test_every_wrong_marker_is_named_and_so_are_the_parts_without_one() -> None:
    wrong = [Wanted(output("vpc.nme"), -1), Wanted(output("vpc.pair.0"), output("vpc.name"))]
    assert problems_of(start().then(take.with_input(wrong))) == [
        "node 'take': its input[0].name: output('vpc.nme'): output 'vpc' is Vpc, which has no 'nme'"
        " but name, subnets, tags, pair",
        "node 'take': its input[0].count does not fit typing.Annotated[int, msgspec.Meta(ge=0)]:"
        " Expected `int` >= 0",
        "node 'take': its input[1].name: expected str, but output('vpc.pair.0') is int",
        "node 'take': its input[1].count: expected typing.Annotated[int, msgspec.Meta(ge=0)], but"
        " output('vpc.name') is str",
    ]


def test_a_value_of_another_type_than_the_node_takes_is_refused_with_markers_in_it_too() -> None:
    builder = start().then(take_wanted.with_input(Subnet(output("vpc.name"))))
    assert problems_of(builder) == ["node 'take-wanted': its input: expected Wanted, got Subnet"]


def test_the_parts_of_a_dict_are_held_against_the_fields_that_it_stands_for() -> None:
    builder = start().then(take_wanted.with_input({"name": "n", "count": output("vpc.name")}))
    (problem,) = problems_of(builder)
    assert "its input['count']: expected" in problem and "but output('vpc.name') is str" in problem


def test_a_marker_cannot_be_a_key() -> None:
    builder = start().then(take.with_input({output("vpc.name"): output("vpc.name")}))
    assert problems_of(builder) == ["node 'take': its input: a marker cannot be the key of a dict"]


def test_nodes_of_one_step_do_not_see_each_other() -> None:
    builder = start().then_parallel("both", dotted, take.with_input(output("svc.charge.name")))
    (problem,) = problems_of(builder)
    assert "no output of that key is there by then; there: vpc" in problem


def test_the_other_arm_of_a_branch_is_not_there_and_after_the_branch_both_may_be() -> None:
    def always(state: FlowState) -> bool:
        return True

    branch = start().when(always).then(dotted).else_()
    (problem,) = problems_of(branch.then(take.with_input(output("svc.charge"))).end_when())
    assert "there: vpc" in problem
    after = branch.then(untyped).end_when().then(take.with_input(output("svc.charge.name")))
    after.build()


def test_in_a_loop_what_follows_is_there_from_the_turn_before() -> None:
    (
        start()
        .then_loop(
            "turns",
            body=[take.with_input(output("svc.charge.name")), dotted],
            state=int,
            initial=input_data("limits.cpu"),
            while_=bool,
            after=lambda state, left: left - 1,
        )
        .build()
    )
    (problem,) = problems_of(
        start().then_loop(
            "turns", body=take, state=int, initial=input_data("region"),
            while_=bool, after=lambda state, left: left - 1,
        )
    )  # fmt: skip
    assert problem == "loop 'turns': initial: expected int, but input_data('region') is str"


def test_a_compensation_sees_the_output_of_what_it_undoes() -> None:
    undo = take.with_input([output("svc.charge.name"), output("vpc.name")])
    flow = start().then(dotted.on_error(undo)).build()
    bound = flow.bindings[1, 0]
    assert isinstance(bound, Node) and bound.compensation is not None
    assert isinstance(bound.compensation.input, Template)
    assert bound.compensation.input.decoded(STATE) == ["charged", "main"]
    (problem,) = problems_of(start().then(dotted.on_error(take.with_input(output("svc.charge.x")))))
    assert "node 'take': its input: output('svc.charge.x')" in problem


def test_the_compensation_of_an_item_sees_that_item() -> None:
    @node("release")
    async def release(name: str) -> None: ...

    @node("reserve")
    async def reserve(name: str) -> Vpc: ...

    undone = reserve.on_error(release.with_input(output("all.name")))
    start().then_each("all", undone, items=output("vpc.subnets")).build()
    listing = reserve.on_error(release.with_input(output("all.0.name")))
    (problem,) = problems_of(start().then_each("all", listing, items=output("vpc.subnets")))
    assert "output 'all' at 0.name is Vpc, which has no '0'" in problem


def test_the_items_of_a_list_can_be_a_marker() -> None:
    flow = start().then_each("all", take, items=output("vpc.subnets")).build()
    lister = flow.bindings[1, 0]
    assert isinstance(lister, Lister)
    assert lister.fn is not None
    assert lister.fn(STATE) == [{"subnetId": "s-1", "zone": 1}, {"subnetId": "s-2", "zone": 2}]
    (problem,) = problems_of(start().then_each("all", take, items=output("vpc.name")))
    assert problem == "step 'all': items: expected list, but output('vpc.name') is str"


@pytest.mark.parametrize(
    ("value", "state", "text"),
    [
        (output("untyped.a.b"), {}, "no output 'untyped.a.b': no node with this output key"),
        (
            output("untyped.a.b"),
            {"untyped": {"a": {"c": 1}}},
            "no output 'untyped.a.b': output 'untyped' at a.b has no 'b'; it has c",
        ),
        (
            output("untyped.3"),
            {"untyped": [1, 2]},
            "no output 'untyped.3': output 'untyped' has no '3'; it has 2 items",
        ),
        (
            output("vpc.tags.a"),
            {"vpc": Vpc("v")},
            "no output 'vpc.tags.a': output 'vpc' at tags.a is NoneType, which has no 'a'",
        ),
    ],
)
def test_what_only_the_run_can_know_is_an_error_with_its_path(
    value: Any, state: dict[str, Any], text: str
) -> None:
    flow = start().then(untyped).then(take.with_input(value)).build()
    with pytest.raises(MissingOutput) as caught:
        template(flow, 2)(FlowState(Kept(state)))
    assert text in str(caught.value)


def test_what_the_input_has_not_is_an_error_with_its_path() -> None:
    flow = start().then(take.with_input(input_data("limits.gpu"))).build()
    with pytest.raises(MissingInput, match=r"no 'limits.gpu' in the input of the flow: it at"):
        template(flow)(STATE)


def test_a_marker_anywhere_else_says_what_it_is_for() -> None:
    text = r"value\[0\]: output\('vpc'\) is a marker: it is for values given to with_input"
    with pytest.raises(NotEncodable, match=text):
        codec.encode([output("vpc")])


def test_a_path_is_not_empty() -> None:
    with pytest.raises(ValueError, match="expected a path such as"):
        output("")


def test_a_value_that_contains_itself_is_refused_by_the_codec() -> None:
    circle: list[Any] = [output("vpc.name")]
    circle.append(circle)
    with pytest.raises(FlowDefinitionError, match="does not fit"):
        start().then(take.with_input(circle)).build()


class Filed(msgspec.Struct):
    docs: DataRef[Vpc]


@node("file")
async def file(filed: Filed) -> DataRef[Vpc]: ...


@node("read")
async def read(docs: DataRef[Vpc]) -> None: ...


def test_an_output_by_reference_is_kept_and_one_that_is_a_reference_is_given_as_it_is() -> None:
    filing = file.with_input({"docs": output_ref("vpc")})
    flow = start().then(filing).then(read.with_input(output_ref("file"))).build()
    assert flow.plan.kept == ((0, 0),)
    assert start().then(file.with_input(lambda s: Filed(s.ref("vpc")))).build().plan.kept == ()
    with pytest.raises(MissingOutput, match="no output 'vpc': it is not in the storage"):
        template(flow).decoded(STATE)
    with pytest.raises(MissingOutput, match="no output 'vpc': it is not there"):
        template(flow).decoded(FlowState(Kept({})))


def test_only_a_whole_output_of_a_node_is_given_by_reference() -> None:
    def problem(value: Any, made: FlowBuilder[Any, Any]) -> str:
        (found,) = problems_of(made.then(take.with_input(value)))
        return found

    listed = start().then_each("all", take, items=output("vpc.subnets"))
    wrong = "expected the output of a node, not that of a list, of children or of a gate"
    assert problem(output_ref("all"), listed) == f"output_ref('all'): {wrong}"
    assert problem(output_ref("ok"), start().then_gate("ok")) == f"output_ref('ok'): {wrong}"
    assert problem(output_ref("vpc.name"), start()).endswith(
        "output_ref('vpc.name'): a whole output is given by reference: expected 'vpc'"
    )
    assert "no output of that key is there" in problem(output_ref("vcp"), start())
    (text,) = problems_of(start().then(take_wanted.with_input({"name": output_ref("vpc")})))
    assert "expected str, but output_ref('vpc') is" in text
    undone = take.with_input(1).on_error(dotted.with_input(output_ref("take")))
    (text,) = problems_of(start().then(undone))
    assert "output_ref('take') is the output of the node that it undoes" in text
    with pytest.raises(ValueError, match="output_ref: expected an output key"):
        output_ref("")
