"""A `.creds` file of NATS: a JWT that says who we are, and the seed of the key that proves it.

The server sends a nonce, and we sign it (Ed25519). Seeds are written as nkeys are: in base32, two
bytes that tell the kind of key, 32 of the key, two of a checksum
(https://github.com/nats-io/nkeys).
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

_SEED = 18 << 3
"""S, in the five bits that are the first letter."""
_USER = 20 << 3
"""U, in the five bits behind."""


def sign(file: Path, nonce: str) -> tuple[str, str]:
    """The JWT, and the nonce signed. Raises OSError, and ValueError for what is no such file."""
    blocks = _blocks(file.read_text("ascii"))
    if "JWT" not in blocks or "SEED" not in blocks:
        raise ValueError("expected a user's JWT and the seed of its nkey; found no such blocks")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (  # noqa: PLC0415 - for the few who have such a file
        Ed25519PrivateKey,
    )

    key = Ed25519PrivateKey.from_private_bytes(_key_of(blocks["SEED"]))
    signature = base64.urlsafe_b64encode(key.sign(nonce.encode()))
    return blocks["JWT"], signature.rstrip(b"=").decode()


def _blocks(text: str) -> dict[str, str]:
    """The line behind each `---BEGIN ...---`, by the last word of that."""
    found: dict[str, str] = {}
    title = ""
    for line in filter(None, map(str.strip, text.splitlines())):
        if line.startswith("---"):
            words = line.strip("- ").split()
            title = words[-1] if words[:1] == ["BEGIN"] else ""
        elif title:
            found.setdefault(title, line)
    return found


def _key_of(seed: str) -> bytes:
    try:
        raw = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except binascii.Error as error:
        raise ValueError(f"the seed is not base32: {error}") from error
    checksum = binascii.crc_hqx(raw[:-2], 0).to_bytes(2, "little")
    if len(raw) != 36 or raw[-2:] != checksum:
        raise ValueError("the seed is damaged: its checksum is wrong")
    kind = raw[0] & 7, raw[1]
    if raw[0] & 0xF8 != _SEED or kind != (_USER >> 5, (_USER & 31) << 3):
        raise ValueError("the seed is not that of a user")
    return raw[2:-2]
