"""What went wrong with a call of an API, and what that means for the node.

HttpError                no answer came, or none that can be read: tried again
├── HttpStatusError      the API refused; `status` says whether it is worth another attempt
└── HttpTerminalError    what another attempt cannot mend (also a TerminalError)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from resolute.errors import ResoluteError, RetryAfter, TerminalError
from resolute.http.quota import pause_of
from resolute.model.classifying import Verdict, http_classifier, retry_after

MOST_SHOWN = 200  # characters of a text that an API wrote

# Refusals for having asked too often: some APIs say 403 for what others call 429.
_TOO_OFTEN = (403, 429)


class Target(NamedTuple):
    """What was called, without the query: its values may be secret."""

    method: str
    host: str
    path: str

    def __str__(self) -> str:
        return f"{self.method} {self.host}{self.path}"


@dataclass(frozen=True)
class Answer:
    """What an API answered."""

    status_code: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


class HttpError(ResoluteError):
    """A call that came to nothing. `method`, `host` and `path` say which; never the query."""

    def __init__(self, target: Target, reason: str) -> None:
        self.method, self.host, self.path = target
        super().__init__(f"{target}: {reason}")


class HttpStatusError(HttpError):
    """The API answered with another status than one of success; `response` has its headers."""

    def __init__(self, target: Target, response: Answer, said: str) -> None:
        self.status = response.status_code
        self.response = response
        super().__init__(target, f"status {self.status}" + (f": {said}" if said else ""))


class HttpTerminalError(HttpError, TerminalError):
    """The answer is not what was declared, or the call cannot be made: no other attempt helps."""


def http_api_classifier(error: BaseException) -> Verdict:
    """The classifier of an HttpApi: `http_classifier`, and what APIs say of their limits.

    A 403 or 429 that names a time, by Retry-After or as the reset of a used-up limit, is tried
    again then; an answer below 400 that is no success is terminal.
    """
    if isinstance(error, HttpStatusError):
        if error.status < 400:
            return "terminal"
        if error.status in _TOO_OFTEN:
            headers = error.response.headers
            seconds = retry_after(headers)
            seconds = pause_of(headers) if seconds is None else seconds
            if seconds is not None:
                return RetryAfter(seconds)
    return http_classifier(error)


def shown(text: str) -> str:
    """The beginning of a text that others wrote, on one line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= MOST_SHOWN else f"{line[:MOST_SHOWN]}…"
