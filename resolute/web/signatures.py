"""Who sent a delivery: HMAC-SHA256 over its raw body, in the forms that senders use.

GitHub: ``X-Hub-Signature-256: sha256=<hex>``. Stripe: ``Stripe-Signature: t=<unix time>,v1=<hex>``
over ``<time>.<body>``, no older than five minutes. Anybody else: ``X-Resolute-Signature:
sha256=<hex>``. Compared in constant time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any, cast

TOLERANCE = 300.0  # s that a signed time may be off

# Headers that carry the sender's own id of a delivery, the same when it is sent again.
DELIVERY_IDS = ("x-github-delivery", "webhook-id", "idempotency-key", "x-delivery-id")
_PLAIN = ("x-hub-signature-256", "x-resolute-signature")


def is_signed(headers: Mapping[str, str], body: bytes, secret: bytes, now: float) -> bool:
    """Whether who knows `secret` sent this; header names are in lower case, `now` is Unix time."""
    stripe = headers.get("stripe-signature")
    if stripe is not None:
        return _is_signed_with_time(stripe, body, secret, now)
    given = next((headers[name] for name in _PLAIN if name in headers), "")
    return _matches(secret, body, given.removeprefix("sha256="))


def delivery_id(headers: Mapping[str, str], body: bytes) -> str:
    """The sender's id of a delivery; '' where it gives none.

    Where the body is signed with its time, as by Stripe, it is the id in there: a header is signed
    by nobody, and with another one who has seen a delivery could send it again as a new one. Of
    what is signed otherwise the header is all there is.
    """
    stripe = headers.get("stripe-signature")
    if stripe is not None:
        try:
            event: Any = json.loads(body)
        except (ValueError, RecursionError):
            event = None
        found = cast("dict[str, Any]", event).get("id") if isinstance(event, dict) else None
        # Without one what was signed stands for itself: the time and the body.
        return str(found) if found else hashlib.sha256(_signed_with(stripe, body)).hexdigest()
    return next((headers[name] for name in DELIVERY_IDS if headers.get(name)), "")


def _signed_with(stripe: str, body: bytes) -> bytes:
    """The time and the body, over which the signature is; the first time, should there be more."""
    parts = (part.strip().partition("=") for part in stripe.split(","))
    time = next((value for name, _, value in parts if name == "t"), "")
    return time.encode("utf-8", "replace") + b"." + body


def _is_signed_with_time(header: str, body: bytes, secret: bytes, now: float) -> bool:
    parts = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in parts if name == "t"]
    try:
        (time,) = times
        if abs(now - int(time)) > TOLERANCE:
            return False
    except ValueError:
        return False
    signed = time.encode() + b"." + body
    return any(_matches(secret, signed, value) for name, _, value in parts if name == "v1")


def _matches(secret: bytes, message: bytes, given: str) -> bool:
    expected = hmac.new(secret, message, hashlib.sha256).hexdigest()
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))
