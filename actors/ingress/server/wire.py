"""What stands in the bytes of a request, where the parser alone does not do. Pure."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from actors.ingress.server.messages import Trouble

IDENTITY = "identity"
_WINDOW_BITS = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}
_OFFERS = frozenset({"upgrade", "http2-settings"})


def unpacked(body: bytes, coding: str, limit: int) -> bytes | Trouble:
    """A body as it was before its Content-Encoding; never more than `limit` bytes of it."""
    coding = coding.strip().lower()
    if coding == IDENTITY:
        return body
    if coding not in _WINDOW_BITS:
        return "body_unreadable"
    inflater = zlib.decompressobj(_WINDOW_BITS[coding])
    try:
        plain = inflater.decompress(body, limit + 1)
    except zlib.error:
        return "body_unreadable"
    if len(plain) > limit:
        return "body_too_large"
    return plain if inflater.eof else "body_unreadable"


def without_offer(method: bytes, target: bytes, version: str, headers: Mapping[str, str]) -> bytes:
    """The head of a request without its offer to go on in another protocol."""
    lines = [b"%b %b HTTP/%b" % (method, target, version.encode())]
    for name, value in headers.items():
        kept = value
        if name == "connection":
            named = (one.strip() for one in value.split(","))
            kept = ", ".join(one for one in named if one and one.lower() not in _OFFERS)
        if name not in _OFFERS and (kept or not value):
            lines.append(f"{name}: {kept}".encode("latin-1"))
    return b"\r\n".join((*lines, b"", b""))
