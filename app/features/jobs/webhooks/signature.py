"""How a webhook is signed."""

import hashlib
import hmac

HEADER = "X-Webhook-Signature"


def sign(secret: str, body: bytes, *, at_s: int) -> str:
    """Return the header's value: a Unix time, and the HMAC-SHA256 of that time and the body.

    The time is signed too, so that a receiver can refuse a recorded webhook that is sent again.
    """
    signed = f"{at_s}.".encode() + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"
