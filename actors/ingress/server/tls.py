"""TLS for a listener: a certificate and its key, read again when their files change.

There is no timer. When a client opens a connection the files' times and sizes are looked at, at
most once a second; a new pair becomes a context of its own, to which this handshake and all later
ones are switched. So a pair that does not load leaves the last one in force, and no client ever
meets half of a renewal.
"""

from __future__ import annotations

import ssl
import time
from pathlib import Path

import structlog

LOOK_S = 1.0
"""How often the files are looked at, at the most."""

log = structlog.get_logger("tls")


class CertificateError(ValueError):
    """A certificate or its key cannot be read, or they do not belong together."""


class Certificate:
    """A certificate chain and its private key, both in PEM."""

    def __init__(self, chain: Path, key: Path | None = None) -> None:
        """`key`: None when the key stands in the file of the chain."""
        self._chain = chain
        self._key = key or chain
        self._current: ssl.SSLContext | None = None
        self._seen: tuple[tuple[int, int, int], ...] = ()
        self._looked_at = 0.0

    def load(self) -> ssl.SSLContext:
        """The context to listen with, which follows the files from now on. Raises
        CertificateError."""
        self._seen, self._looked_at = self._signature(), time.monotonic()
        self._current = self._read()
        # One of its own, as the one that clients are switched to is replaced.
        front = self._read()
        front.sni_callback = self._choose
        return front

    def _choose(self, connection: ssl.SSLObject, _name: str | None, _front: ssl.SSLContext) -> None:
        """Called by each handshake, also of clients that name no server."""
        self._look()
        if self._current is not None:
            connection.context = self._current

    def _look(self) -> None:
        now = time.monotonic()
        if now - self._looked_at < LOOK_S:
            return
        self._looked_at = now
        try:
            seen = self._signature()
            if seen == self._seen:
                return
            self._current, self._seen = self._read(), seen
        except CertificateError as error:
            # Half of a renewal, as likely as not: looked at again a second from now.
            log.warning("certificate_not_loaded", error=str(error))
        else:
            log.info("certificate_loaded", file=str(self._chain))

    def _read(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            context.load_cert_chain(self._chain, self._key, password=self._no_password)
        except ssl.SSLError as error:
            why = error.reason or str(error)
            raise CertificateError(
                f"{self._chain} and {self._key} are no certificate and key of each other in PEM: "
                f"{why.lower().replace('_', ' ')}"
            ) from None
        except OSError as error:
            raise CertificateError(f"{self._chain}, {self._key}: {error.strerror}") from None
        return context

    def _no_password(self) -> str:
        raise CertificateError(f"{self._key} is encrypted; a service needs a key without password")

    def _signature(self) -> tuple[tuple[int, int, int], ...]:
        found = []
        for path in (self._chain, self._key):
            try:
                one = path.stat()
            except OSError as error:
                raise CertificateError(f"{path}: {error.strerror}") from None
            found.append((one.st_mtime_ns, one.st_size, one.st_ino))
        return tuple(found)
