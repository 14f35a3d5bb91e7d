"""An API over HTTP as a provider of typed nodes: see `HttpApi`. Needs ``resolute[http]``."""

from __future__ import annotations

from resolute.errors import ConfigurationError

try:
    import httpx as _httpx
except ImportError as missing:
    raise ConfigurationError(
        f"resolute.http needs {missing.name}: pip install 'resolute[http]'"
    ) from missing

from resolute.http.api import HttpApi
from resolute.http.environment import Env, env
from resolute.http.errors import (
    HttpError,
    HttpStatusError,
    HttpTerminalError,
    http_api_classifier,
)

del _httpx

__all__ = [
    "Env",
    "HttpApi",
    "HttpError",
    "HttpStatusError",
    "HttpTerminalError",
    "env",
    "http_api_classifier",
]
