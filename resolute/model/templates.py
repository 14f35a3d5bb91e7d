"""Templates: values with markers in them, checked at `build()` and filled in by a worker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import msgspec

from resolute.errors import MissingInput, MissingOutput
from resolute.model import codec
from resolute.model.fitting import fits, type_name
from resolute.model.markers import Marker, MarkerKind
from resolute.model.paths import field_types, type_at, value_at
from resolute.model.references import DataRef, is_ref
from resolute.model.state import FlowState

DEEPEST = 50  # levels of a value that are looked at


class Place(NamedTuple):
    """Where a marker's value is: the output `key` or, '' for that, the flow's input; inside of it
    the path `steps`. `type_` is that of the whole. With `is_kept` it is the reference to an output
    that goes to the storage for it.
    """

    key: str
    steps: tuple[str, ...]
    type_: Any
    is_kept: bool = False


@dataclass(frozen=True)
class Template:
    """A function of FlowState, as `with_input` takes one: its value with the markers filled in."""

    value: Any
    places: Mapping[Marker, Place]

    def __call__(self, state: FlowState) -> msgspec.Raw:
        """The value, encoded. Raises MissingOutput and MissingInput with the marker's path."""
        found = {marker: _find(state, marker, place) for marker, place in self.places.items()}
        data = codec.encode(self.value, max_payload=codec.UNBOUNDED, what="input", found=found)
        return msgspec.Raw(data)

    @property
    def kept(self) -> set[str]:
        """The keys of the outputs that go to the storage, to be given by reference."""
        return {place.key for place in self.places.values() if place.is_kept}

    def decoded(self, state: FlowState) -> Any:
        """The value as it is on the wire: dicts, lists, texts and numbers."""
        return codec.decode(bytes(self(state)))


def _find(state: FlowState, marker: Marker, place: Place) -> Any:
    """What a marker stands for. Whole outputs are not decoded."""
    type_ = place.type_ if place.steps else msgspec.Raw
    match marker.kind:
        case MarkerKind.CURSOR:
            return state.cursor(marker.path).value
        case MarkerKind.CURSOR_TEXT:
            return state.cursor(marker.path).text_or("")
        case MarkerKind.REF if place.is_kept:
            return state.ref(place.key)
        case MarkerKind.OUTPUT | MarkerKind.REF:
            missing, what = MissingOutput, f"output {place.key!r}"
            try:
                whole = state.get(place.key, type_)
            except MissingOutput as error:
                raise MissingOutput(marker.path, error.cause) from None
        case MarkerKind.INPUT:
            missing, what = MissingInput, "it"
            whole = state.input(type_)
    try:
        return value_at(whole, place.steps)
    except LookupError as error:
        raise missing(marker.path, _at(what, place, error)) from None


def _at(what: str, place: Place, error: LookupError) -> str:
    """ "output 'vpc' has no 'nme'; it has id, name": which part of the path is to blame."""
    return f"{what}{' at ' + '.'.join(place.steps) if len(place.steps) > 1 else ''} {error.args[0]}"


class Scope(NamedTuple):
    """What markers can stand for at one place of a flow: outputs by key, and the input."""

    outputs: Mapping[str, Any]
    input_type: Any

    def place(self, marker: Marker) -> Place:
        """Where a marker's value is. Raises LookupError where there is none."""
        parts = tuple(marker.path.split(".")) if marker.path else ()
        if marker.kind is MarkerKind.CURSOR:
            return Place("", (), Any)
        if marker.kind is MarkerKind.CURSOR_TEXT:
            return Place("", (), str)
        if marker.kind is MarkerKind.INPUT:
            return Place("", parts, self.input_type)
        for count in range(len(parts), 0, -1):
            key = ".".join(parts[:count])
            if key in self.outputs and marker.kind is MarkerKind.REF:
                return self._by_reference(key, parts[count:])
            if key in self.outputs:
                return Place(key, parts[count:], self.outputs[key])
        there = ", ".join(sorted(self.outputs)) or "none"
        raise LookupError(f"no output of that key is there by then; there: {there}")

    def _by_reference(self, key: str, steps: tuple[str, ...]) -> Place:
        if steps:
            raise LookupError(f"a whole output is given by reference: expected {key!r}")
        type_ = self.outputs[key]
        if is_ref(type_):
            return Place(key, (), type_)
        return Place(key, (), DataRef[type_], is_kept=True)


def has_markers(value: Any, depth: int = 0) -> bool:
    """Whether there is a marker in `value`."""
    if isinstance(value, Marker) or depth > DEEPEST:
        return isinstance(value, Marker)
    return any(has_markers(part.value, depth + 1) for part in _parts(value, Any))


def make_template(
    value: Any, expected: Any, scope: Scope, problems: list[str], what: str
) -> Template:
    """The template of a value that is to fit `expected`; adds what is wrong with it to `problems`.

    `what` begins each of them.
    """
    places: dict[Marker, Place] = {}

    def look(value: Any, expected: Any, where: str, depth: int) -> None:
        if isinstance(value, Marker):
            found = _check_marker(value, expected, scope)
            if isinstance(found, str):
                problems.append(f"{what}{where}: {found}")
            else:
                places[value] = found
        elif depth < DEEPEST and has_markers(value):
            if not fits(type(value), expected):
                got = type_name(type(value))
                problems.append(f"{what}{where}: expected {type_name(expected)}, got {got}")
            for part in _parts(value, expected):
                look(part.value, part.expected, where + part.step, depth + 1)
            if isinstance(value, Mapping) and any(
                isinstance(key, Marker) for key in cast("Mapping[Any, Any]", value)
            ):
                problems.append(f"{what}{where}: a marker cannot be the key of a dict")
        else:
            problem = misfit(value, expected)
            if problem:
                problems.append(f"{what}{where} does not fit {type_name(expected)}: {problem}")

    look(value, expected, "", 0)
    return Template(value, places)


def misfit(value: Any, expected: Any) -> str:
    """Why a value without markers does not fit a type; '' if it does."""
    try:
        codec.decode(codec.encode(value), expected)
    except Exception as error:
        return str(error)
    return ""


def _check_marker(marker: Marker, expected: Any, scope: Scope) -> Place | str:
    """Where the value is, or why it cannot be there or cannot fit."""
    try:
        place = scope.place(marker)
    except LookupError as error:
        return f"{marker!r}: {error.args[0]}"
    what = f"output {place.key!r}" if place.key else "the input"
    try:
        given = type_at(place.type_, place.steps)
    except LookupError as error:
        return f"{marker!r}: {_at(what, place, error)}"
    if not fits(given, expected):
        return f"expected {type_name(expected)}, but {marker!r} is {type_name(given)}"
    return place


class _Part(NamedTuple):
    step: str
    value: Any
    expected: Any


def _parts(value: Any, expected: Any) -> Iterator[_Part]:
    """What a value consists of, each part with its type as far as that is known."""
    match value:
        case Mapping():
            for key, part in cast("Mapping[Any, Any]", value).items():
                yield _Part(f"[{key!r}]", part, _type_at(expected, str(key)))
        case list() | tuple() | set() | frozenset():
            types = field_types(type(cast("object", value)))  # of a NamedTuple
            names = list(types)
            for index, part in enumerate(cast("list[Any]", value)):
                known = types[names[index]] if names else _type_at(expected, str(index))
                yield _Part(f"[{index}]", part, known)
        case _:
            for name, type_ in field_types(type(value)).items():
                if hasattr(value, name):
                    yield _Part(f".{name}", getattr(value, name), type_)


def _type_at(expected: Any, step: str) -> Any:
    try:
        return type_at(expected, (step,))
    except LookupError:
        return Any
