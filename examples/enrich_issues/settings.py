"""Where the services and the SQLite file are: two environment variables, read when needed."""

from __future__ import annotations

import os
from pathlib import Path

SERVICES_URL = "ENRICH_SERVICES_URL"
DATABASE = "ENRICH_DB"

QUEUE = "enrichment-queue"


def services_url() -> str:
    """The base URL of the services."""
    return os.environ.get(SERVICES_URL, "http://127.0.0.1:8080")


def database() -> Path:
    """The SQLite file that the rows go to."""
    return Path(os.environ.get(DATABASE, ".resolute/enrich-issues/issues.sqlite"))
