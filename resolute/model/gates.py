"""What passes a gate."""

from __future__ import annotations

from typing import Any

import msgspec


class GateResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A decision: the payload of a gate's signal, and the output of its step.

    `approved` must be said, and a field that is none of these is refused: nothing is approved by
    accident. `metadata` is whatever the decider wants the flow to know.
    """

    approved: bool
    decided_by: str = ""
    reason: str = ""
    metadata: dict[str, Any] = {}
