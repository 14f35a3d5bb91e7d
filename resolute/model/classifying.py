"""What a failed attempt means: error classifiers, and the one for HTTP."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Literal

from resolute.errors import RetryAfter

# "retry": try again, as the policy allows; "terminal": no attempt more; "fatal": nor is a node
# forgiven that is best effort; RetryAfter: try again no sooner; None: as without a classifier.
Verdict = Literal["retry", "terminal", "fatal"] | RetryAfter | None
Classifier = Callable[[BaseException], Verdict]

_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST = 30 * 86_400.0  # s


def http_classifier(error: BaseException) -> Verdict:
    """A classifier for what httpx and requests raise; None for anything else.

    Tried again: when no answer came (connections, timeouts), and for the answers 408, 425, 429,
    500, 502, 503 and 504, no sooner than their Retry-After says (seconds or an HTTP date, RFC
    9110).
    Any other status of 400 or more is terminal.
    """
    response: Any = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if isinstance(status, int) and status >= 400:
        if status not in _AGAIN:
            return "terminal"
        seconds = retry_after(getattr(response, "headers", None))
        return "retry" if seconds is None else RetryAfter(seconds)
    return "retry" if _is_transport_error(error) else None


def retry_after(headers: Mapping[str, str] | None) -> float | None:
    """Seconds that a Retry-After header asks for; None where there is none that can be read."""
    text = (headers or {}).get("Retry-After") or (headers or {}).get("retry-after") or ""
    try:
        seconds = float(text)
    except ValueError:
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = (moment - datetime.now(moment.tzinfo or UTC)).total_seconds()
    return min(max(0.0, seconds), _LONGEST) if seconds == seconds else None


def _is_transport_error(error: BaseException) -> bool:
    """Whether no answer came, by the names of the libraries: neither is imported for this."""
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    return bool(names & {"httpx.TransportError", "requests.ConnectionError", "requests.Timeout"})
