"""The payments team's code: nodes that any flow may have run by name, from the queue payments.

resolute-worker --queue payments --app examples.charge_cards.payments
"""

from __future__ import annotations

import msgspec

from resolute import ConcurrencyLimit, Provider, TerminalError, current, node


class Charge(msgspec.Struct):
    """What to charge, in cents."""

    card: str
    cents: int


class Receipt(msgspec.Struct):
    """Proof of a charge. `id` is the same in every attempt."""

    id: str
    cents: int


# The bank takes one charge of a card at a time, wherever our workers are.
CARD = ConcurrencyLimit("card", 1, key=lambda what: what.card)
BANK = ConcurrencyLimit("bank", 50)  # connections that it allows us, charges and refunds together


@node("charge", concurrency=CARD)
async def charge(what: Charge) -> Receipt:
    """Charges a card once, however often it is tried: the id is the key for the bank."""
    if what.card == "declined":
        raise TerminalError("the card was declined")
    return Receipt(current().key, what.cents)


@node("refund")
async def refund(receipt: Receipt) -> str:
    """Gives the money back."""
    return receipt.id


provider = Provider(
    "cards", "1.2", [charge, refund], rate_limit="100/s", timeout="30s", concurrency=BANK
)
