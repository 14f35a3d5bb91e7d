"""Values on the wire: what goes, what comes back, and what is said where it cannot."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pytest

from resolute.errors import NotEncodable, PayloadTooLarge
from resolute.model import codec


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Point(NamedTuple):
    x: int
    y: float


@dataclass
class Address:
    street: str
    tags: list[str] = field(default_factory=list[str])


class Row(TypedDict):
    id: int
    address: Address


class Order(msgspec.Struct):
    id: str
    address: Address | None = None
    total: Decimal = Decimal(0)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, None),
        (True, bool),
        (2**63, int),
        (-(2**63), int),
        (1.5, float),
        ("é" * 100, str),
        (b"\x00\xff", bytes),
        ([1, "a", None], list[Any]),
        ({"a": {"b": [1]}}, dict[str, Any]),
        ({1: "a"}, dict[int, str]),
        ((1, "a"), tuple[int, str]),
        ({1, 2}, set[int]),
        (datetime(2026, 11, 22, 1, 2, 3, 4, tzinfo=UTC), datetime),
        (datetime(2026, 11, 22, 1, 2, 3), datetime),
        (date(2026, 11, 22), date),
        (timedelta(days=1, microseconds=3), timedelta),
        (UUID(int=7), UUID),
        (Decimal("0.1000"), Decimal),
        (Colour.RED, Colour),
        (Level.HIGH, Level),
        (Point(1, 2.5), Point),
        (Address("Main", ["a"]), Address),
        ({"id": 1, "address": Address("Main")}, Row),
        (Order("o", Address("Main"), Decimal("9.99")), Order),
        ([Order("o")], list[Order]),
        (None, Order | None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_comes_back_as_what_it_was(value: Any, kind: Any):
    again = codec.decode(codec.encode(value), kind)
    assert again == value
    assert type(again) is type(value)


def test_without_a_type_a_value_comes_back_as_plain_data():
    assert codec.decode(codec.encode(Order("o", Address("Main")))) == {
        "id": "o", "address": {"street": "Main", "tags": []}, "total": "0",
    }  # fmt: skip


def test_constraints_are_checked():
    positive = Annotated[int, msgspec.Meta(ge=1)]
    assert codec.decode(codec.encode(1), positive) == 1
    with pytest.raises(msgspec.ValidationError):
        codec.decode(codec.encode(0), positive)


def test_a_value_of_another_type_is_refused_with_its_path():
    with pytest.raises(msgspec.ValidationError, match=r"\$\.address\.street"):
        codec.decode(codec.encode({"id": "o", "address": {"street": 7}}), Order)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (object(), "output"),
        ([1, [2, object()]], "output[1][1]"),
        ({"a": {"b": object()}}, "output['a']['b']"),
        (Order("o", Address("Main", [object()])), "output.address.tags[0]"),  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
        ((1, lambda: None), "output[1]"),
        ({"n": 2**70}, "output['n']"),
        ([1, 2**70], "output[1]"),
    ],
    ids=["itself", "list", "dict", "struct", "tuple", "big int", "big int in a list"],
)
def test_what_cannot_be_encoded_is_named_by_its_path(value: Any, path: str):
    with pytest.raises(NotEncodable) as caught:
        codec.encode(value, what="output")
    assert caught.value.path == path
    assert path in str(caught.value)


def test_a_value_that_holds_itself_is_refused_and_does_not_hang():
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(NotEncodable):
        codec.encode(endless)


def test_text_that_is_no_unicode_is_refused():
    with pytest.raises(NotEncodable) as caught:
        codec.encode({"name": "\ud800"})
    assert caught.value.path == "value['name']"


@pytest.mark.parametrize("size", [10, 300, 70_000])
def test_a_payload_over_the_limit_is_refused_with_both_sizes(size: int):
    encoded = len(codec.encode(b"x" * size))
    assert codec.encode(b"x" * size, max_payload=encoded)
    with pytest.raises(PayloadTooLarge) as caught:
        codec.encode(b"x" * size, max_payload=encoded - 1)
    assert (caught.value.size, caught.value.limit) == (encoded, encoded - 1)
    assert f"{encoded:,}" in str(caught.value)


def test_a_mebibyte_is_the_limit_unless_another_is_given():
    assert codec.DEFAULT_MAX_PAYLOAD == 1024 * 1024
    with pytest.raises(PayloadTooLarge):
        codec.encode(b"x" * codec.DEFAULT_MAX_PAYLOAD)


class Model:
    """What a pydantic model looks like from here."""

    def __init__(self, name: str) -> None:
        self.name = name

    def model_dump(self, *, mode: str) -> dict[str, str]:
        assert mode == "json"
        return {"name": self.name}

    @classmethod
    def model_validate(cls, value: dict[str, str]) -> Model:
        return cls(value["name"])


def test_a_pydantic_model_goes_and_comes_without_pydantic_being_known():
    data = codec.encode({"model": Model("a")})
    again = codec.decode(data, dict[str, Model])
    assert again["model"].name == "a"


def test_a_type_that_msgspec_cannot_make_is_an_error_when_it_is_decoded():
    class Strange:
        pass

    with pytest.raises(Exception, match="Strange"):
        codec.decode(codec.encode({}), Strange)


@pytest.mark.parametrize(
    ("kind", "has_schema"), [(Order, True), (int, True), (Any, False), (Callable, False)]
)
def test_a_type_has_a_schema_where_there_is_one_for_it(kind: Any, has_schema: bool):
    assert bool(codec.schema(kind)) == has_schema


def test_the_decoder_of_a_type_is_made_once():
    assert codec.decoder(Order) == codec.decoder(Order)


def test_a_culprit_is_found_however_deep_it_is():
    value: Any = object()
    for _ in range(30):
        value = [value]
    with pytest.raises(NotEncodable) as caught:
        codec.encode(value, what="output")
    assert caught.value.path == "output" + "[0]" * 30


def test_a_type_that_cannot_be_hashed_can_be_decoded():
    kind = Annotated[int, ["metres"]]
    assert codec.decode(codec.encode(3), kind) == 3
    with pytest.raises(msgspec.ValidationError):
        codec.decode(codec.encode("x"), kind)


@dataclass
class Half:
    fine: int
    missing: Any


def test_an_object_whose_field_was_never_set_is_refused_and_not_looked_into():
    half = Half(1, object())
    half.fine = object()  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
    del half.missing
    with pytest.raises(NotEncodable) as caught:
        codec.encode(half, what="output")
    assert caught.value.path == "output.fine"
