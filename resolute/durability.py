"""How much must have happened to a write before a call that made it returns."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from resolute.errors import ConfigurationError


class Durability(StrEnum):
    """What an acknowledgement promises; docs/durability.md says it at length."""

    FAST = "fast"  # the server has it in memory
    FSYNC = "fsync"  # the disk of the primary has it
    REPLICATED = "replicated"  # so many replicas have it in memory


Level = Durability | Literal["fast", "fsync", "replicated"]


def check_level(level: str) -> Durability:
    """Raises ConfigurationError for what is no level."""
    try:
        return Durability(level)
    except ValueError:
        known = ", ".join(Durability)
        raise ConfigurationError(f"durability: expected one of {known}, got {level!r}") from None


def check_replicas(replicas: int) -> int:
    """Raises ConfigurationError for a number of replicas that proves nothing."""
    if replicas < 1:
        raise ConfigurationError(f"replicas: expected 1 or more, got {replicas!r}")
    return replicas
