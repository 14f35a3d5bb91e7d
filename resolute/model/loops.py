"""The functions of a loop, as the nodes that the plan has of it call them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from resolute.errors import LoopLimitExceeded
from resolute.model.functions import check_answer
from resolute.model.state import FlowState


@dataclass(frozen=True)
class LoopFunctions:
    """The state of the loop `name` is a `type_`; there are `most` turns at most."""

    name: str
    type_: Any
    most: int

    def begin(self, initial: Any) -> Callable[[FlowState], Any]:
        """The state before the first turn: a value, or what a function of FlowState says."""
        return lambda state: initial(state) if callable(initial) else initial

    def head(self, while_: Callable[[Any], bool]) -> Callable[[FlowState], bool]:
        """Whether another turn begins. Raises LoopLimitExceeded."""

        def goes_on(state: FlowState) -> bool:
            answer = while_(self._state(state))
            check_answer(f"loop {self.name!r}: while_", answer)
            if not answer:
                return False
            if state.turn(self.name) > self.most:
                raise LoopLimitExceeded(self.name, self.most)
            return True

        return goes_on

    def turn(self, change: Callable[[FlowState, Any], Any]) -> Callable[[FlowState], Any]:
        """The state after `change`."""
        return lambda state: change(state, self._state(state))

    def end(self) -> Callable[[FlowState], Any]:
        return self._state

    def _state(self, state: FlowState) -> Any:
        return state.get(self.name, self.type_)
