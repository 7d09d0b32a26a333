"""What a handler is given, and what it gives back."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Literal
from urllib.parse import parse_qsl, unquote_to_bytes

if TYPE_CHECKING:
    from actors.ingress.server.connection import Connection, Stream

JSON = "application/json"

Trouble = Literal[
    "malformed", "head_too_large", "body_too_large", "body_too_slow", "body_unreadable"
]
"""Why a request never reached its handler."""


class Request:
    """One request, its body complete. Header names are in lower case; of a header that came more
    than once the values are joined by commas."""

    __slots__ = (
        "body", "connection", "headers", "http11", "keep_alive", "method", "name", "path",
        "raw_query"
    )  # fmt: skip

    def __init__(self, connection: Connection, method: str, target: bytes) -> None:
        self.connection = connection
        self.method = method
        path, _, query = target.partition(b"?")
        # Invalid UTF-8 is nobody's path; it must find no route, not raise.
        text = unquote_to_bytes(path) if b"%" in path else path
        self.path = text.decode("utf-8", "replace")
        self.raw_query = query.decode("latin-1")
        self.headers: dict[str, str] = {}
        self.body = b""
        self.http11 = True
        self.keep_alive = True
        self.name = ""
        """What logs and traces call it, once something is done for it."""

    @property
    def query(self) -> dict[str, str]:
        """What stands behind the question mark; of a name given twice the last value."""
        return dict(parse_qsl(self.raw_query, keep_blank_values=True))

    @property
    def has_body(self) -> bool:
        """Whether one comes behind its head, by what that says."""
        headers = self.headers
        return bool(headers.get("content-length", "").strip("0")) or "transfer-encoding" in headers

    def begin(self, status: int, headers: Mapping[str, str]) -> Stream | None:
        """Send the head of an answer of unknown length; None when the client has gone."""
        return self.connection.begin_stream(self, status, headers)

    def cut(self) -> None:
        """Close the connection at once, with whatever waits to be sent."""
        self.connection.abort()

    @property
    def peer(self) -> str:
        """The client's address, without its port."""
        return self.connection.peer


class Response:
    """An answer of known length."""

    __slots__ = ("body", "content_type", "headers", "status")

    def __init__(
        self,
        body: bytes,
        status: int = 200,
        content_type: str = JSON,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.body = body
        self.status = status
        self.content_type = content_type
        self.headers = headers

    def encode(self, *, keep_alive: bool, http11: bool, with_body: bool) -> bytes:
        """Head and body in one piece, so that they leave in one packet."""
        fields = {
            "Content-Type": self.content_type,
            "Content-Length": str(len(self.body)),
            **(self.headers or {}),
        }
        if self.status == HTTPStatus.NO_CONTENT:  # has no content to be of a type and a length
            del fields["Content-Type"], fields["Content-Length"]
        head = encode_head(self.status, fields, keep_alive=keep_alive, http11=http11)
        return head + self.body if with_body else head


Handler = Callable[[Request], Awaitable[Response | None]]
"""Answers a request: by what it returns, or by a stream it has begun, and then None."""


class _Date:
    """The Date header, made once a second."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def __call__(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second, self._text = second, formatdate(second, usegmt=True)
        return self._text


_STATUS_LINES = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus
}
_date = _Date()


def encode_head(status: int, fields: Mapping[str, str], *, keep_alive: bool, http11: bool) -> bytes:
    """Status line and header fields. Raises ValueError for a field that would break out of its
    line."""
    lines = [_STATUS_LINES.get(status) or f"HTTP/1.1 {status} \r\n", "Date: ", _date(), "\r\n"]
    for name, value in fields.items():
        if "\r" in value or "\n" in value:
            raise ValueError(f"a line break in the value of {name}")
        lines += (name, ": ", value, "\r\n")
    if not keep_alive:
        lines.append("Connection: close\r\n")
    elif not http11:
        lines.append("Connection: keep-alive\r\n")
    lines.append("\r\n")
    return "".join(lines).encode("latin-1", "replace")
