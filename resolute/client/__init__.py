"""L4, the client: starts runs, awaits them, reads them. Needs no flow code and no worker."""

from __future__ import annotations

from resolute.client.client import Client
from resolute.client.letters import DeadLetter
from resolute.client.run import FlowRun, RunInfo

__all__ = ["Client", "DeadLetter", "FlowRun", "RunInfo"]
