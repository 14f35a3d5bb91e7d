"""What a node asks of its run's state: from what came with its claim, or fetched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from resolute.engine.bound import Bound
from resolute.engine.reading import INPUT, signals_of, step_output
from resolute.errors import ErrorInfo, StorageUnavailable, StoreUnavailable
from resolute.model.state import CURSOR, ONE, SIGNALS, FlowState, Outputs, whole


class OutputsAway(StoreUnavailable):
    """What a node's input needs cannot be read now: that is not the node's failure."""


# The node is handed back, and no attempt is used up.
AWAY = (OutputsAway, StorageUnavailable)


@dataclass(slots=True)
class Preloaded:
    """Outputs that came with the claim; what is missing is fetched, and learned for next time."""

    bound: Bound
    values: dict[str, bytes | None]
    remote: Outputs
    own: tuple[str, bytes] | None = None  # key and output of a node, for its compensation's input

    def get(self, key: str) -> bytes | None:
        if self.own is not None and key == self.own[0]:
            return self.own[1]
        if key.startswith(SIGNALS):
            name = key.removeprefix(SIGNALS)
            return signals_of(self.bound.flow, self.bound.pc, name, self.remote.get)
        if key.startswith((CURSOR, ONE)):
            return self.remote.get(key)
        each = self.bound.flow.lists.get(key)
        if each is None or self._get(key) is None:
            return self._get(key)
        return step_output(each, lambda one: whole(self.remote, self._get(one)))

    def _get(self, key: str) -> bytes | None:
        name = self.bound.field(key)
        if name in self.values:
            return self.values[name]
        if "[" in key:  # one item of many: neither learned nor kept
            return self.remote.get(key)
        self.values[name] = value = self.remote.get(key)
        # Only now: a key that cannot even be asked for must not be asked for with every claim.
        self.bound.learned.add(key)
        return value

    def keys(self) -> list[str]:
        found = list(self.remote.keys())
        if self.own is not None and self.own[0] not in found:
            found.append(self.own[0])
        return found

    def input(self) -> bytes:
        data = self.values.get("input")
        if data is None:
            self.bound.learned.add(INPUT)
            data = self.values["input"] = self.remote.input()
        return data

    def error(self, key: str) -> ErrorInfo | None:
        return self.remote.error(key)

    def whole(self, stub: bytes) -> bytes:
        return self.remote.whole(stub)


def state_of(
    bound: Bound, fields: Sequence[str], values: Sequence[bytes | None], remote: Outputs
) -> FlowState:
    """The state that an input function or a predicate sees."""
    return FlowState(Preloaded(bound, dict(zip(fields, values, strict=True)), remote))
