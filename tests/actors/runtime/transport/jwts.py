"""An operator of NATS with an account and its users, as `nsc` would make them: keys, JWTs, the
server's configuration, and a `.creds` file for each user."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import time
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_KINDS = {"operator": 14 << 3, "account": 0, "user": 20 << 3}
_SEED = 18 << 3
_WITHOUT_LIMIT = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")


class Key:
    """Of an operator, an account or a user."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._private = Ed25519PrivateKey.generate()
        prefix = _KINDS[kind]
        self.public = _text(bytes([prefix]) + self._private.public_key().public_bytes_raw())
        head = bytes([_SEED | prefix >> 5, (prefix & 31) << 3])
        self.seed = _text(head + self._private.private_bytes_raw())

    def vouch(self, subject: Key, expires: int = 0, **claims: Any) -> str:
        """A JWT that this key has signed."""
        body: dict[str, Any] = {
            "iat": int(time.time()),
            "iss": self.public,
            "name": f"{subject.kind}-of-the-test",
            "sub": subject.public,
            "nats": {"type": subject.kind, "version": 2, **claims},
        }
        if expires:
            body["exp"] = expires
        digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).digest()
        body["jti"] = base64.b32encode(digest).decode().rstrip("=")
        signed = f"{_part({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_part(body)}"
        return f"{signed}.{_url(self._private.sign(signed.encode()))}"


class Operator:
    """With one account, whose users may do everything in it."""

    def __init__(self) -> None:
        self._key = Key("operator")
        self._account, self._system = Key("account"), Key("account")

    def configuration(self, port: int, store: Path) -> str:
        """Of a server that trusts this operator."""
        limits = dict.fromkeys(_WITHOUT_LIMIT, -1) | {"wildcards": True}
        system = self._key.vouch(self._system, limits=limits)
        jetstream = {"mem_storage": -1, "disk_storage": -1}
        account = self._key.vouch(self._account, limits=limits | jetstream)
        return f"""\
listen: "127.0.0.1:{port}"
jetstream: {{store_dir: "{store}"}}
operator: {self._key.vouch(self._key)}
system_account: {self._system.public}
resolver: MEMORY
resolver_preload: {{
  {self._system.public}: {system}
  {self._account.public}: {account}
}}
"""

    def credentials(self, *, expires: int = 0, seed: str | None = None) -> str:
        """A new user's file. `seed`: another one than belongs to it."""
        user = Key("user")
        jwt = self._account.vouch(user, expires, subs=-1, data=-1, payload=-1)
        return f"""\
-----BEGIN NATS USER JWT-----
{jwt}
------END NATS USER JWT------

************************* IMPORTANT *************************
NKEY Seed printed below can be used to sign and prove identity.

-----BEGIN USER NKEY SEED-----
{seed or user.seed}
------END USER NKEY SEED------

*************************************************************
"""


def _text(raw: bytes) -> str:
    checksum = binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    return base64.b32encode(raw + checksum).decode().rstrip("=")


def _part(claims: dict[str, Any]) -> str:
    return _url(json.dumps(claims).encode())


def _url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
