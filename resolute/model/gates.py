"""What passes a gate."""

from __future__ import annotations

from typing import Any

import msgspec


class GateResult(msgspec.Struct, frozen=True):
    """A decision: the payload of a gate's signal, and the output of its step.

    `metadata` is whatever the decider wants the flow to know.
    """

    approved: bool = True
    decided_by: str = ""
    reason: str = ""
    metadata: dict[str, Any] = {}
