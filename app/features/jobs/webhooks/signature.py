"""How a webhook is signed: as Standard Webhooks has it, and as this service had it before."""

import hashlib
import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Sequence

from app.settings import MIN_SECRET_CHARS

# Of this service alone, and deprecated: docs/webhooks.md says until when it is sent.
HEADER = "X-Webhook-Signature"
PREFIX = "whsec_"
MAX_SECRETS = 4  # of a rotation: each makes the header longer
SEPARATORS = re.compile(r"[\s,]+")


def read_secrets(setting: str) -> tuple[str, ...]:
    """Return the secrets of a setting, which has one, or several with commas or space between them.

    A text of which a part is too short for a secret is one secret, as in releases that knew no
    lists, unless it has a `whsec_…`.

    Raises:
        ValueError: one is no secret; the message doesn't repeat it.

    """
    parts = tuple(part for part in SEPARATORS.split(setting) if part)
    is_list = any(part.startswith(PREFIX) for part in parts) or all(
        len(part) >= MIN_SECRET_CHARS for part in parts
    )
    secrets = parts if is_list else (setting,)  # of nothing but separators it is none
    if not 1 <= len(secrets) <= MAX_SECRETS:
        raise ValueError(f"must be 1 to {MAX_SECRETS} secrets")
    for secret in secrets:
        _check(secret)
    return secrets


def _check(secret: str) -> None:
    """Refuse a `whsec_…` that no library of Standard Webhooks could read, and short secrets."""
    if not secret.startswith(PREFIX):
        if len(secret) < MIN_SECRET_CHARS:
            raise ValueError(f"must have at least {MIN_SECRET_CHARS} characters")
        return
    try:
        key = standard_key(secret)
    except ValueError:
        key = b""
    if len(key) < MIN_SECRET_CHARS:
        raise ValueError(f"must have at least {MIN_SECRET_CHARS} bytes in base64 after {PREFIX}")


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


def standard_headers(
    secrets: Sequence[str], body: bytes, *, message_id: str, at_s: int
) -> dict[str, str]:
    """Return the three headers of Standard Webhooks, https://www.standardwebhooks.com.

    Args:
        secrets: as set or generated; each signs, so that receivers can change from one to another.
        body: as it is sent.
        message_id: the same in all attempts; without a full stop, which ends it in what is signed.
        at_s: Unix time of this attempt.

    """
    signed = f"{message_id}.{at_s}.".encode() + body
    digests = [
        hmac.new(standard_key(secret), signed, hashlib.sha256).digest() for secret in secrets
    ]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(f"v1,{b64encode(digest).decode()}" for digest in digests),
    }
