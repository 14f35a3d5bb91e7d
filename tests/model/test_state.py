"""What an input function sees of a run: read-only, typed, and loaded as it is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from resolute.errors import ErrorInfo, MissingOutput
from resolute.model import codec
from resolute.model.nodes import node
from resolute.model.state import FlowState


class Order(msgspec.Struct):
    id: str


class Stored:
    """Outputs as they are stored, counting what is loaded."""

    def __init__(self, **outputs: Any) -> None:
        self.outputs = outputs
        self.errors: dict[str, ErrorInfo] = {}
        self.loaded: list[str] = []

    def get(self, key: str) -> bytes | None:
        self.loaded.append(key)
        return codec.encode(self.outputs[key]) if key in self.outputs else None

    def keys(self) -> Iterable[str]:
        return self.outputs

    def input(self) -> bytes:
        return codec.encode({"id": "the input"})

    def error(self, key: str) -> ErrorInfo | None:
        return self.errors.get(key)

    def whole(self, stub: bytes, /) -> bytes:
        raise AssertionError("nothing here is in a storage")


@node("fetch", output="order")
async def fetch() -> Order:
    return Order("o")


def test_an_output_is_found_by_its_node_with_the_node_s_type():
    assert FlowState(Stored(order=Order("o")))[fetch] == Order("o")


def test_an_output_is_found_by_its_key_with_the_type_asked_for():
    state = FlowState(Stored(order=Order("o")))
    assert state.get("order", Order) == Order("o")
    assert state.get("order", dict) == {"id": "o"}
    with pytest.raises(msgspec.ValidationError):
        state.get("order", int)


def test_a_value_is_loaded_and_decoded_once_for_each_type():
    stored = Stored(order=Order("o"))
    state = FlowState(stored)
    assert state[fetch] is state[fetch] is state.get("order", Order)
    assert stored.loaded == ["order"]


def test_nothing_is_loaded_that_is_not_read():
    stored = Stored(order=Order("o"), other=1)
    _ = FlowState(stored)[fetch]
    assert stored.loaded == ["order"]


def test_a_missing_output_is_a_key_error_that_says_why():
    stored = Stored()
    with pytest.raises(MissingOutput, match="no output 'order'") as caught:
        _ = FlowState(stored)[fetch]
    assert isinstance(caught.value, KeyError)
    stored.errors["order"] = ErrorInfo("ValueError", "no such order")
    with pytest.raises(MissingOutput, match="the node failed: ValueError: no such order"):
        _ = FlowState(stored)[fetch]


def test_a_missing_output_can_have_a_default():
    state = FlowState(Stored(order=Order("o")))
    assert state.get_or("gone", int, 7) == 7
    assert state.get_or("order", Order, None) == Order("o")
    assert state.get_or(fetch, None) == Order("o")
    assert FlowState(Stored()).get_or(fetch, None) is None


def test_none_is_an_output_like_any_other():
    state = FlowState(Stored(order=None))
    assert state.has("order")
    assert state.get_or("order", Order | None, Order("default")) is None


def test_it_can_be_asked_what_there_is():
    state = FlowState(Stored(order=Order("o"), a=1))
    assert state.has(fetch)
    assert state.has("a")
    assert not state.has("b")
    assert state.keys() == ["a", "order"]


def test_the_input_of_the_flow_has_the_type_asked_for():
    assert FlowState(Stored()).input(Order) == Order("the input")


def test_the_error_of_a_best_effort_node_is_there_only_if_it_failed_in_the_end():
    stored = Stored(order=Order("o"))
    stored.errors = {"order": ErrorInfo("E", "a first attempt"), "b": ErrorInfo("E", "the last")}
    state = FlowState(stored)
    assert state.error(fetch) is None
    assert state.error("b") == ErrorInfo("E", "the last")
    assert state.error("c") is None


def test_a_state_cannot_be_written_to():
    state: Any = FlowState(Stored())
    with pytest.raises(TypeError):
        state["order"] = 1
    with pytest.raises(AttributeError):
        state.order = 1


def test_what_is_asked_for_wrongly_is_told_what_was_expected():
    state: Any = FlowState(Stored(order={"id": "o"}))
    for call in (
        lambda: state.get_or("gone", int),
        lambda: state.get_or("gone"),
        lambda: state.get_or(fetch),
        lambda: state.get_or(fetch, Order, None),
    ):
        with pytest.raises(TypeError, match="get_or: expected"):
            call()
    assert state.get_or("gone", int, default=None) is None
    with pytest.raises(TypeError, match=r"expected a node, got 'ok': use state\.get\('ok', T\)"):
        state["ok"]
    for wrong in (5, fetch.fn):
        with pytest.raises(TypeError, match="expected a node"):
            state[wrong]
        with pytest.raises(TypeError, match="expected a node or an output key, got"):
            state.has(wrong)
