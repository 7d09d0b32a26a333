"""HTTP/1.1 and server-sent events, as much as a load generator needs and no more. Pure.

A general client spends more on a streamed token than the server under test; this one takes bytes
as the socket delivers them and hands out whole `data:` lines.
"""

from __future__ import annotations

HEAD_LIMIT_BYTES = 65_536
_BLANK = b"\r\n\r\n"


class BadResponse(Exception):
    """The server sent what is not an HTTP/1.1 response."""


def render_request(host: str, path: str, body: bytes, api_key: str = "") -> bytes:
    """A POST of JSON that asks to keep the connection."""
    authorization = f"Authorization: Bearer {api_key}\r\n" if api_key else ""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"{authorization}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class ResponseReader:
    """Takes one response apart. Feed it until `done`."""

    def __init__(self) -> None:
        self.status = 0
        self.keep_alive = True
        self.done = False
        self._buffer = bytearray()
        self._chunked = False
        self._left: int | None = None
        """Bytes until the end of body or chunk; None: until the connection closes."""
        self._in_trailer = False

    def feed(self, data: bytes) -> bytes:
        """The part of the body that these bytes complete. Raises BadResponse."""
        self._buffer += data
        if self.status == 0 and not self._read_head():
            return b""
        if self._chunked:
            return self._read_chunks()
        if self._left is None:
            return self._take(len(self._buffer))
        body = self._take(min(self._left, len(self._buffer)))
        self._left -= len(body)
        self.done = self._left == 0
        return body

    def eof(self) -> bool:
        """The server closed the connection: whether the response is whole."""
        if self.status and not self._chunked and self._left is None:
            self.done = True
        return self.done

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        return taken

    def _read_head(self) -> bool:
        end = self._buffer.find(_BLANK)
        if end < 0:
            if len(self._buffer) > HEAD_LIMIT_BYTES:
                raise BadResponse(f"a head of more than {HEAD_LIMIT_BYTES} bytes")
            return False
        status_line, *lines = self._take(end + len(_BLANK))[:end].split(b"\r\n")
        parts = status_line.split(b" ", 2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
            raise BadResponse(f"not a status line: {status_line[:80]!r}")
        headers = {
            name.strip().lower(): value.strip().lower()
            for name, _, value in (line.partition(b":") for line in lines)
        }
        self.status = int(parts[1])
        self.keep_alive = headers.get(b"connection") != b"close" and parts[0] == b"HTTP/1.1"
        self._chunked = headers.get(b"transfer-encoding") == b"chunked"
        if self._chunked:
            self._left = 0
        elif b"content-length" in headers:
            self._left = int(headers[b"content-length"])
            self.done = self._left == 0
        else:
            self.keep_alive = False
        return True

    def _read_chunks(self) -> bytes:
        body = bytearray()
        while not self.done and self._buffer:
            if self._left:
                # A chunk and the line end behind it; the latter is not body.
                piece = self._take(min(self._left, len(self._buffer)))
                visible = max(0, self._left - 2)
                body += piece[:visible]
                self._left -= len(piece)
                continue
            end = self._buffer.find(b"\r\n")
            if end < 0:
                break
            line = self._take(end + 2)[:end]
            if self._in_trailer:
                self.done = not line
                continue
            try:
                size = int(line.split(b";", 1)[0], 16)
            except ValueError:
                raise BadResponse(f"not a chunk size: {line[:80]!r}") from None
            self._in_trailer = size == 0
            self._left = size + 2 if size else 0
        return bytes(body)


class EventReader:
    """Cuts server-sent events out of a body; every event of this API is one `data:` line."""

    def __init__(self) -> None:
        self._partial = b""

    def feed(self, body: bytes) -> list[bytes]:
        """The payloads of all lines that these bytes complete."""
        *lines, self._partial = (self._partial + body).split(b"\n")
        return [line[5:].strip() for line in lines if line.startswith(b"data:")]
