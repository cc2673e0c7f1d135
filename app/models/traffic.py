"""Chooses the version that answers: each gets its share, and a caller keeps the one that it got."""

from collections.abc import Iterable
from hashlib import blake2b
from math import log

HASH_BYTES = 8
HASHES = 1 << (8 * HASH_BYTES)


def choose(weights: Iterable[tuple[str, float]], key: str) -> str:
    """Return one of the versions, always the same for a key.

    By weighted rendezvous hashing (Mosharaf and others, 2014: the largest of `weight / -ln(hash)`):
    where a weight changes, or a version goes, only those keys move that have to.

    Args:
        weights: versions with their weights, of which one at least is above 0.
        key: of whoever is to have the same version each time.

    """
    return max(weights, key=lambda one: _score(one[0], one[1], key))[0]


def _score(version: str, weight: float, key: str) -> float:
    if not weight:
        return 0.0
    digest = blake2b(f"{version}\0{key}".encode("utf-8", "surrogatepass"), digest_size=HASH_BYTES)
    share = (int.from_bytes(digest.digest()) + 0.5) / (HASHES + 1)  # between 0 and 1, never either
    return weight / -log(share)
