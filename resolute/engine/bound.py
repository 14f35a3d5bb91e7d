"""A node of a plan with the user's function, prepared once.

So an attempt only walks through it: which fields to read, how to decode them, what to call, how to
encode what it returned. No Redis in here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any

from resolute.engine.progress import progress_field
from resolute.engine.reading import Previous, field_of
from resolute.engine.serving import with_limits_of
from resolute.ids import RETRY
from resolute.model import codec
from resolute.model.flow import Binding, Flow, Lister, Notice, Question, Saver, compensation_of
from resolute.model.messages import Entry
from resolute.model.node_plans import places_plans
from resolute.model.nodes import PREVIOUS, Node
from resolute.model.paging import Pager
from resolute.model.plan import Loop, NamedPlan, NodePlan, PlacesPlan, Wide, item_key, prepared_key
from resolute.model.policies import Limit

FOLDER, UNDOS, STARTED = "folder", "undos", "started"  # fields of the hash
ERROR, CANCEL = "error", "cancel"  # and these


class Source(StrEnum):
    """The kinds of input."""

    NOTHING = "nothing"
    VALUE = "value"
    PREVIOUS = "previous"
    FUNCTION = "function"
    STATE = "state"
    UNDO = "undo"
    ITEM = "item"
    PREPARED = "prepared"


@dataclass(frozen=True, eq=False)
class Bound:
    """A node of a plan with the user's function, ready to be attempted many times."""

    flow: Flow[Any, Any]
    pc: int
    index: int
    plan: NodePlan
    binding: Binding
    undo: bool = False
    named: NamedPlan | None = None  # what the plan says of a node that is run by name
    added: tuple[Limit, ...] = ()  # limits of the served node, behind those of the flow
    learned: set[str] = field(default_factory=set[str])  # output keys its input function reads

    @classmethod
    def of(
        cls,
        flow: Flow[Any, Any],
        pc: int,
        index: int,
        *,
        undo: bool = False,
        served: Node[Any, Any] | None = None,
    ) -> Bound:
        """The node at (pc, index) of a flow, or its compensation.

        One that is run by name is the node `served` here under that name.
        """
        named = flow.plan.named_at(pc, index, undo=undo)
        plan = flow.plan.node(pc, index)
        if named is not None and served is not None:
            asked = plan.compensation if undo else plan
            if asked is None:
                raise LookupError(f"node {plan.name!r} has no compensation")
            plan, added = with_limits_of(served, asked)
            return cls(flow, pc, index, plan, served, undo, named, added)
        binding = flow.bindings[flow.place(pc, index)]
        if not undo:
            return cls(flow, pc, index, plan, binding, named=named)
        compensation = compensation_of(binding)
        if plan.compensation is None or compensation is None:
            raise LookupError(f"node {plan.name!r} has no compensation")
        return cls(flow, pc, index, plan.compensation, compensation, undo=True, named=named)

    @cached_property
    def source(self) -> Source:
        """Where the input of the node comes from."""
        if isinstance(self.binding, Notice):
            return Source.NOTHING
        if self.undo:
            return Source.UNDO
        if self.is_item and self.takes_input:
            return Source.ITEM
        if isinstance(self.binding, Lister) and self.binding.fn is None:
            return Source.PREVIOUS
        if isinstance(self.binding, Question):
            return Source.STATE
        if not self.takes_input:
            return Source.NOTHING
        if self.named is not None:
            return Source.PREPARED if self.named.prepared else Source.PREVIOUS
        if self.binding.input is PREVIOUS:
            return Source.PREVIOUS
        return Source.FUNCTION if callable(self.binding.input) else Source.VALUE

    @cached_property
    def decode(self) -> Callable[[bytes], Any]:
        """From the encoded input to the value the function takes."""
        return codec.decoder(
            self.binding.input_type if isinstance(self.binding, Node) else list[Any]
        )

    @cached_property
    def previous(self) -> Previous:
        return Previous.of(self.flow.plan, self.pc)

    @cached_property
    def check_output(self) -> Callable[[bytes], Any] | None:
        """Decodes an output to its declared type; None where it declares none."""
        if not isinstance(self.binding, Node) or self.binding.output_type is Any:
            return None
        return codec.decoder(self.binding.output_type)

    @cached_property
    def compensation(self) -> NodePlan | None:
        return None if self.undo else self.plan.compensation

    @cached_property
    def undone(self) -> NodePlan:
        """The node that a compensation undoes."""
        return self.flow.plan.node(self.pc, self.index)

    @cached_property
    def is_item(self) -> bool:
        """Whether it runs once for each item of a list."""
        return isinstance(self.flow.plan.step(self.pc), Wide) and not self.undo

    def is_kept(self, output: bytes) -> bool:
        """Whether an encoded output goes to the storage."""
        if len(output) > self.flow.max_payload:
            return True
        return not self.undo and (self.pc, self.index) in self.flow.plan.kept

    def key(self, entry: Entry) -> str:
        """The output key of one hand-out of it."""
        return item_key(self.plan.key, entry.index) if self.is_item else self.plan.key

    @cached_property
    def is_threaded(self) -> bool:
        return isinstance(self.binding, Node) and not self.binding.is_async

    @property
    def input(self) -> Any:
        """What was given to `with_input`."""
        return self.binding.input if isinstance(self.binding, Node) else PREVIOUS

    @property
    def takes_input(self) -> bool:
        if isinstance(self.binding, Node):
            return self.binding.takes_input
        return isinstance(self.binding, Question)

    @cached_property
    def call(self) -> Callable[[Any], Any]:
        """The user's function, called with the input; what takes none is called without."""
        if isinstance(self.binding, Notice):
            raise LookupError(f"node {self.plan.name!r} has no function: it tells the hooks")
        fn: Callable[..., Any] = self.binding.fn or _itself
        if self.takes_input:
            return fn
        return lambda _: fn()

    @cached_property
    def limit_keys(self) -> tuple[Callable[[Any], str] | None, ...]:
        """For each limit of the plan, what splits its bucket by the input."""
        if not isinstance(self.binding, Node):
            return ()
        if self.named is not None:  # those of the flow come first, and split nothing
            own = [limit.key for limit in self.added]
            return (*[None] * (len(self.plan.limits) - len(own)), *own)
        return tuple(limit.key for limit in self.binding.limits)

    @cached_property
    def places(self) -> tuple[tuple[PlacesPlan, Callable[[Any], str] | None], ...]:
        """Its concurrency limits, each with what splits it by the input.

        What limits a served node holds beside what the flow asks for; who names it has no key.
        """
        node = self.binding
        if not isinstance(node, Node):
            return ()
        own = self.flow.plan.places_at(self.pc, self.index, undo=self.undo)
        if self.named is None:
            return tuple(zip(own, (limit.key for limit in node.concurrency_limits), strict=True))
        known = {limit.name for limit in own}
        served = () if node.is_named else node.concurrency_limits
        pairs = zip(places_plans(node), served, strict=False)
        added = [(plan, limit.key) for plan, limit in pairs if plan.name not in known]
        return (*((limit, None) for limit in own), *added)

    @property
    def is_limited(self) -> bool:
        """Whether something else than a slot must be free before it starts."""
        return bool(self.plan.limits or self.places)

    @cached_property
    def asides(self) -> dict[str, int]:
        """The hash fields that say how an attempt goes, by their place behind the other `fields`.

        The run's folder in the storage, where an input is read as it is asked for; how many
        compensations there are, where a loop may bring many; when the run began, where a cursor is
        saved; why it fails, where the hooks are told of its end.
        """
        names: list[str] = []
        match self.source:
            case Source.FUNCTION | Source.STATE:
                names.append(FOLDER)
            case Source.PREVIOUS if self.previous.has_lists:
                names.append(FOLDER)
            case Source.UNDO if self.flow.plan.named_at(self.pc, self.index) is not None:
                names.append(FOLDER)  # what it is made of the state is made only now: UNDO_OPEN
            case _:
                pass
        if self.compensation is not None and self._is_in_loop:
            names.append(UNDOS)
        if isinstance(self.binding, Saver):
            names.append(STARTED)
        if isinstance(self.binding, Notice) and self.undo:
            names += [ERROR, CANCEL]
        return {name: at - len(names) for at, name in enumerate(names)}

    @cached_property
    def _is_in_loop(self) -> bool:
        heads = enumerate(self.flow.plan.instructions)
        return any(isinstance(one, Loop) and at < self.pc < one.otherwise for at, one in heads)

    def aside(self, name: str, values: Sequence[bytes | None]) -> bytes | None:
        """One of `asides` from the values of `fields`; None where it is not read or not there."""
        at = self.asides.get(name)
        return None if at is None else values[at]

    @cached_property
    def pager(self) -> Pager | None:
        """Its function, where that fetches page by page."""
        fn = self.binding.fn if isinstance(self.binding, Node) else None
        return fn if isinstance(fn, Pager) else None

    def keeps_progress(self, entry: Entry) -> bool:
        """Whether an attempt may find how far one before it had come.

        That is where pages are fetched, where the node was handed out before, and in the retry of a
        run, which goes on with what the failed one had.
        """
        if self.pager is not None:
            return True
        is_first = entry.token.endswith(".0") and RETRY not in entry.flow
        return isinstance(self.binding, Node) and not is_first

    def progress(self, entry: Entry, values: Sequence[bytes | None]) -> bytes | None:
        """How far the attempts before it had come, from the values of `fields`."""
        return values[-1 - len(self.asides)] if self.keeps_progress(entry) else None

    def fields(self, entry: Entry) -> list[str]:
        """The hash fields an attempt needs before it starts."""
        progress = [progress_field(entry)] if self.keeps_progress(entry) else []
        return [*self._input_fields(entry), *progress, *self.asides]

    def _input_fields(self, entry: Entry) -> list[str]:
        match self.source:
            case Source.UNDO:
                return [f"ui:{entry.undo}"]
            case Source.ITEM:
                return [f"i:{entry.seq}.{entry.index}"]
            case Source.PREVIOUS:
                return self.previous.fields
            case Source.PREPARED:
                return [f"o:{prepared_key(self.plan.key)}"]
            case Source.FUNCTION | Source.STATE:
                return [self.field(key) for key in self.learned]
            case _:
                return []

    def field(self, key: str) -> str:
        """The hash field of a key that a state is asked for."""
        return field_of(self.flow, key)


def _itself(value: Any) -> Any:
    return value
