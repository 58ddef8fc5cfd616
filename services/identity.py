"""Identifiers that sort by time, and digests of contents.

An id is a prefix and 26 characters of Crockford's base 32: 48 bits of milliseconds and
80 random bits, the layout of a ULID, so that ids made later sort later.
"""

import hashlib
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
DIGEST = re.compile(r"^[0-9a-f]{64}$")
_PAIRS = [one + other for one in ALPHABET for other in ALPHABET]
_PLACES = (40, 30, 20, 10, 0)
_RANDOM = 16
_BY_BYTE = (ALPHABET * 8).encode()


def new_id(
    prefix: str,
    *,
    now: float | None = None,
    random_bits: Callable[[int], int] = secrets.randbits,
) -> str:
    """Return a new id.

    Args:
        prefix: What it names: ``"job"`` gives ``job_01j…``.
        now: Seconds since 1970; the clock where left out.
        random_bits: Gives so many random bits.
    """
    milliseconds = int((time.time() if now is None else now) * 1000)
    # Without a loop over its characters: every request has an id.
    time_part = "".join([_PAIRS[milliseconds >> place & 1023] for place in _PLACES])
    drawn = random_bits(8 * _RANDOM).to_bytes(_RANDOM, "big")
    return f"{prefix}_{time_part}{drawn.translate(_BY_BYTE).decode()}"


def encode(value: int, length: int) -> str:
    """Return ``value`` in Crockford's base 32, ``length`` characters."""
    return "".join(
        ALPHABET[value >> 5 * place & 31] for place in reversed(range(length))
    )


def sha256(data: bytes | Path) -> str:
    """Return the SHA-256 of bytes or of a file's content, 64 hexadecimal digits."""
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    with data.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
