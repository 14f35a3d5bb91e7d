"""A loop outlives what one turn of it runs into."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator

from resolute.errors import ResoluteError, StoreUnavailable


@contextlib.contextmanager
def surviving(log: logging.Logger, what: str) -> Generator[None]:
    """Log an error of `what` and go on: a line where it was to be expected, else a traceback."""
    try:
        yield
    except StoreUnavailable as error:
        log.debug("%s: %s", what, error)  # the link says it, once an outage
    except (ResoluteError, TimeoutError) as error:
        log.warning("%s: %s", what, error)
    except Exception:
        log.exception("%s failed", what)
