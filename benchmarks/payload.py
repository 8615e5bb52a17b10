"""The events that everybody stores: a JSON payload of about 200 bytes.

Everybody encodes it within the measured time, with the same encoder.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

TYPE: Final = "OrderPlaced"
STREAM_LENGTH: Final = 100
"""A writer begins a new stream after so many events, as the reference's own benchmark does."""


def payload(number: int) -> dict[str, Any]:
    """Return the payload of one event; no two are alike."""
    return {
        "order": f"order-{number:012d}",
        "customer": f"customer-{number % 9973:06d}",
        "lines": [{"sku": f"sku-{number % 797:05d}", "quantity": number % 7 + 1, "price": "19.95"}],
        "currency": "EUR",
        "note": "left at the neighbour's door, please ring",
    }


def encoded(number: int) -> bytes:
    """Return the payload as JSON."""
    return orjson.dumps(payload(number))
