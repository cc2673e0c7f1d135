"""How a webhook is signed: as Standard Webhooks has it, and as this service had it before."""

import hashlib
import hmac
from base64 import b64decode, b64encode

# Of this service alone, and deprecated: docs/webhooks.md says until when it is sent.
HEADER = "X-Webhook-Signature"
PREFIX = "whsec_"


def sign(secret: str, body: bytes, *, at_s: int) -> str:
    """Return the deprecated header's value: a Unix time, and the HMAC-SHA256 of it and the body.

    The time is signed too, so that a receiver can refuse a recorded webhook that is sent again.
    """
    signed = f"{at_s}.".encode() + body
    digest = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"


def standard_secret(secret: str) -> str:
    """Return a secret as libraries of Standard Webhooks take it: `whsec_` and the key in base64.

    A secret that is no `whsec_` itself is the key as it stands, in UTF-8: that of the deprecated
    header.
    """
    if secret.startswith(PREFIX):
        return secret
    return PREFIX + b64encode(secret.encode()).decode()


def standard_key(secret: str) -> bytes:
    """Return the key that a secret stands for.

    Raises:
        ValueError: what follows `whsec_` isn't base64.

    """
    return b64decode(standard_secret(secret).removeprefix(PREFIX), validate=True)


def standard_headers(secret: str, body: bytes, *, message_id: str, at_s: int) -> dict[str, str]:
    """Return the three headers of Standard Webhooks, https://www.standardwebhooks.com.

    Args:
        secret: as set or generated.
        body: as it is sent.
        message_id: the same in all attempts; without a full stop, which ends it in what is signed.
        at_s: Unix time of this attempt.

    """
    signed = f"{message_id}.{at_s}.".encode() + body
    digest = hmac.new(standard_key(secret), signed, hashlib.sha256).digest()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": f"v1,{b64encode(digest).decode()}",
    }
