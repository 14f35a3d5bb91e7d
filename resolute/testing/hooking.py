"""Calling the hooks of a flow in memory: in a thread, as a worker does, with the loop waiting."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

from resolute.engine.hooking import HOOK_SECONDS, Call, call_all

log = logging.getLogger(__name__)


def call_hooks(calls: Sequence[Call], name: str) -> None:
    """Call hooks of node `name`; one that blocks for more than 10 s of real time is left behind."""
    if not calls:
        return
    until = time.monotonic() + HOOK_SECONDS
    thread = threading.Thread(target=call_all, args=(calls, name, until), daemon=True)
    thread.start()
    thread.join(HOOK_SECONDS + 0.5)
    if thread.is_alive():
        log.error("a hook of node %s blocks for %g s: going on without it", name, HOOK_SECONDS)
