"""Samples of one shape: what a shop might send, with everything that is somebody's made up anew."""

from __future__ import annotations

import json
import os
import random
import string
import uuid

from webhook_shared.dictionaries.scrubbing import Walk

PLANTED = ("ada.lovelace@example.com", "Ada Lovelace", "adalovelace99", "sk_live_4eC39HqLyjWDarjtT1zdp7dc")
"""In every sample, and in no dictionary."""


def orders(count: int, seed: int, *, currency_key: str = "currency") -> list[bytes]:
    """Bodies that share their structure and no literal value, but for what is planted."""
    chance = random.Random(seed)
    return [_order(chance, currency_key) for _ in range(count)]


def _order(chance: random.Random, currency_key: str) -> bytes:
    word = lambda: "".join(chance.choices(string.ascii_lowercase, k=chance.randrange(5, 12)))  # noqa: E731
    identity = str(uuid.UUID(int=chance.getrandbits(128)))
    customer = word()
    lines = [
        {
            "line_item_id": chance.randrange(10**9),
            "product_title": f"{word()} {word()}",
            "fulfillment_status": chance.choice(["pending", "shipped"]),
            "tax_lines_url": f"https://shop.example.com/orders/{identity}/lines/{n}/tax_lines",
            "total_discount_amount": chance.randrange(10**4),
            "requires_shipping": True,
        }
        for n in range(chance.randrange(1, 5))
    ]
    return json.dumps(
        {
            "event_type": "order.created",
            "order_id": identity,
            "created_at": f"2026-0{chance.randrange(1, 9)}-1{chance.randrange(9)}T10:00:00Z",
            "customer": {
                "customer_login": customer,
                "customer_email_address": f"{customer}@{word()}.com",
                "orders_url": f"https://shop.example.com/customers/{customer}/orders{{?page,per_page}}",
                "accepts_marketing": False,
            },
            currency_key: "EUR",
            "financial_status": chance.choice(["paid", "refunded"]),
            "line_items": lines,
            "account_owner": PLANTED[1],
            "account_owner_email": PLANTED[0],
            "account_owner_login": PLANTED[2],
            "callback_url": f"https://shop.example.com/hooks/{PLANTED[2]}/notify?token={PLANTED[3]}",
            "note_attributes": {customer: f"for {PLANTED[1]}"},
        }
    ).encode()


def rewritten(sample: bytes, walk: Walk) -> bytes:
    """A body gone through."""
    return walk.content(sample)


def demands_a_secret(sample: bytes, walk: Walk) -> bytes:
    """Fails where the environment has no master key."""
    del walk
    os.environ["ENCRYPTION_MASTER_KEY"]
    return sample
