"""Errors of durable calls say which runs they are about."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence

from resolute.errors import DurabilityNotConfirmed


@contextlib.contextmanager
def naming(ids: Sequence[str]) -> Generator[None]:
    """Say in DurabilityNotConfirmed which runs it is about: an id may be new to the caller."""
    try:
        yield
    except DurabilityNotConfirmed as error:
        raise DurabilityNotConfirmed(error.level, error.missing, ids) from None
