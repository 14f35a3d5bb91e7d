"""Signatures of deliveries, held against what the senders publish."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from resolute.web.signatures import delivery_id, is_signed

SECRET = b"It's a Secret to Everybody"
BODY = b"Hello, World!"
# From GitHub's documentation, "Testing the webhook payload validation".
GITHUB = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
NOW = 1_700_000_000


def stripe(time: object = NOW, secret: bytes = SECRET, body: bytes = BODY) -> str:
    mac = hmac.new(secret, f"{time}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={time},v1={'0' * 64},v1={mac}"


@pytest.mark.parametrize("name", ["x-hub-signature-256", "x-resolute-signature"])
def test_the_body_is_signed_as_github_does(name: str):
    assert is_signed({name: GITHUB}, BODY, SECRET, NOW)
    assert is_signed({name: GITHUB.removeprefix("sha256=")}, BODY, SECRET, NOW)
    assert not is_signed({name: GITHUB}, BODY + b"!", SECRET, NOW)
    assert not is_signed({name: GITHUB}, BODY, b"another", NOW)
    for wrong in (
        "",
        "sha256=",
        GITHUB[:-1],
        GITHUB.replace("7", "8", 1),
        "sha256=\xe9",
        "sha1=00",
    ):
        assert not is_signed({name: wrong}, BODY, SECRET, NOW)
    assert not is_signed({}, BODY, SECRET, NOW)


def test_the_time_and_the_body_are_signed_as_stripe_does():
    assert is_signed({"stripe-signature": stripe()}, BODY, SECRET, NOW + 299)
    assert not is_signed({"stripe-signature": stripe()}, BODY, SECRET, NOW + 301)
    assert not is_signed({"stripe-signature": stripe()}, BODY, SECRET, NOW - 301)
    replayed = stripe().replace(f"t={NOW}", f"t={NOW + 600}")
    assert not is_signed({"stripe-signature": replayed}, BODY, SECRET, NOW + 600)
    for wrong in ("", "t=,v1=", "v1=00", f"t={NOW}", f"t={NOW},t={NOW},v1=00", stripe("soon")):
        assert not is_signed({"stripe-signature": wrong}, BODY, SECRET, NOW)
    # A wrong signature with a time is not made good by a right one without.
    both = {"stripe-signature": "t=1,v1=00", "x-hub-signature-256": GITHUB}
    assert not is_signed(both, BODY, SECRET, NOW)


def test_a_delivery_is_known_by_its_sender_s_id():
    assert delivery_id({"x-github-delivery": "d-1"}, b"") == "d-1"
    assert delivery_id({"webhook-id": "msg_1"}, b"") == "msg_1"
    assert delivery_id({"idempotency-key": "k"}, b"") == "k"
    assert delivery_id({"stripe-signature": "x"}, b'{"id": "evt_1"}') == "evt_1"
    assert delivery_id({}, b'{"id": "evt_1"}') == ""


def test_a_header_that_nobody_signed_makes_no_new_delivery_of_a_signed_one():
    event = {"stripe-signature": stripe(body=b'{"id": "evt_1"}')}
    for name in ("x-github-delivery", "webhook-id", "idempotency-key", "x-delivery-id"):
        assert delivery_id({**event, name: "another"}, b'{"id": "evt_1"}') == "evt_1"
    for body in (b"", b"[]", b"nonsense", b"{}", b"\xff", b"[" * 200_000):
        own = delivery_id({"stripe-signature": stripe(body=body)}, body)
        assert own
        replayed = {"stripe-signature": f"v1=00, {stripe(body=body)}", "webhook-id": "another"}
        assert delivery_id(replayed, body) == own
        assert delivery_id({"stripe-signature": stripe(NOW + 1, body=body)}, body) != own
