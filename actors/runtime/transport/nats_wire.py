"""NATS's protocol between a client and its server, as text lines and counted payloads. Pure.

See https://docs.nats.io/reference/reference-protocols/nats-protocol.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

LINE_LIMIT_BYTES = 1024 * 1024
"""Of a control line; INFO, which lists the servers of a cluster, is the longest."""
NO_RESPONDERS = b"NATS/1.0 503"
_END = b"\r\n"

OnMessage = Callable[[int, bytes, bytes, bytes, bytes], None]
"""Subscription, subject, subject to answer on, headers, payload."""


class ServerInfo(msgspec.Struct, frozen=True):
    """What we read of INFO."""

    max_payload: int = 0
    tls_required: bool = False
    tls_available: bool = False
    nonce: str = ""
    """To be signed by who has credentials."""
    connect_urls: tuple[str, ...] = ()
    """`host:port` of the cluster's other servers."""


class Connect(msgspec.Struct, frozen=True, omit_defaults=True):
    """What we say of ourselves; `jwt` and `sig` go with a nonce."""

    name: str
    verbose: bool
    pedantic: bool
    headers: bool
    no_responders: bool
    protocol: int = 0
    lang: str = ""
    user: str | None = None
    password: str | None = msgspec.field(name="pass", default=None)
    auth_token: str | None = None
    jwt: str | None = None
    sig: str | None = None
    tls_required: bool = False


class BadWire(Exception):
    """The other side does not speak NATS."""


class Reader:
    """Cuts what the server sends into messages and other lines, whatever the pieces it comes in."""

    def __init__(self, on_message: OnMessage, on_line: Callable[[bytes, bytes], None]) -> None:
        """`on_line`: the first word of any line but a message's, in capitals, and the rest."""
        self._on_message = on_message
        self._on_line = on_line
        self._parts: list[bytes] = []
        self._held = 0
        self._needed = 0
        """Bytes in all before there is any point in looking again."""

    def feed(self, data: bytes) -> None:
        """Call back for everything that these bytes complete. Raises BadWire."""
        if self._parts:
            self._parts.append(data)
            self._held += len(data)
            if self._held < self._needed:
                return
            data = b"".join(self._parts)
            self._parts.clear()
        at, size, self._needed = 0, len(data), 0
        while at < size:
            end = data.find(_END, at)
            if end < 0:
                if size - at > LINE_LIMIT_BYTES:
                    raise BadWire("a line without an end")
                break
            if data.startswith((b"MSG ", b"HMSG "), at):
                after = self._message(data, at, end, size)
                if not after:
                    break
                at = after
            else:
                word, _, rest = data[at:end].partition(b" ")
                at = end + 2
                self._on_line(word.upper(), rest)
        if at < size:
            self._parts.append(data[at:] if at else data)
            self._held = size - at

    def _message(self, data: bytes, at: int, end: int, size: int) -> int:
        """Hand one message out; return where the next line begins, 0 when it is not all here."""
        fields = data[at:end].split()
        has_headers = data[at] == ord("H")
        try:
            length = int(fields[-1])
            head = int(fields[-2]) if has_headers else 0
            subscription = int(fields[2])
        except (ValueError, IndexError):
            raise BadWire(f"not a message: {data[at:end][:100]!r}") from None
        start = end + 2
        stop = start + length
        if stop + 2 > size:
            self._needed = stop + 2 - at
            return 0
        reply = fields[3] if len(fields) == (6 if has_headers else 5) else b""
        headers = data[start : start + head] if head else b""
        payload = data[start + head : stop]
        self._on_message(subscription, fields[1], reply, headers, payload)
        return stop + 2


def publication(subject: str, reply: str, payload: bytes) -> bytes:
    """One message to be sent."""
    to = f"{subject} {reply}" if reply else subject
    return b"PUB %b %d\r\n%b\r\n" % (to.encode(), len(payload), payload)
