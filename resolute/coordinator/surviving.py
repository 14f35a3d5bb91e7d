"""A loop outlives what one turn of it runs into."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator

from resolute.errors import ConfigurationError, ResoluteError, StoreUnavailable


@contextlib.contextmanager
def surviving(log: logging.Logger, what: str) -> Generator[None]:
    """Log an error of `what` and go on: a line where it was to be expected, else a traceback.

    Only what another turn cannot mend, ConfigurationError, ends the loop.
    """
    try:
        yield
    except ConfigurationError:
        raise
    except StoreUnavailable as error:
        log.debug("%s: %s", what, error)  # the link says it, once an outage
    except (ResoluteError, TimeoutError) as error:
        log.warning("%s: %s", what, error)
    except Exception:
        log.exception("%s failed", what)
