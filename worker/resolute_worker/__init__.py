"""L5, the worker: a supervisor without user code, and processes that run the nodes."""

from __future__ import annotations

from resolute_worker.worker import Worker

__all__ = ["Worker"]
