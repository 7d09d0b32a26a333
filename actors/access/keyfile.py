"""API keys in a file, as hashes. `supervise keys` writes it, ingresses read it.

    {"version": 1, "keys": [{"name": "alice", "hash": "sha256:…", "requests_per_minute": 60}]}

A key is 32 random bytes, so one round of SHA-256 is as good as any slow hash: there is nothing to
guess. The file can be read by whoever may know the names and limits, and cannot be turned back
into keys.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

PREFIX = "sk-us-"
"""So that scanners for leaked secrets, and people, can tell what it is."""
VERSION = 1
Positive = Annotated[int, msgspec.Meta(ge=1)]


class KeyFileError(ValueError):
    """The file cannot be read, or is not of this form."""


class Limits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one key may take; None: as much as there is."""

    requests_per_minute: Positive | None = None
    tokens_per_minute: Positive | None = None
    """Of prompts and answers together."""
    concurrency: Positive | None = None
    """Requests in progress."""
    tokens_per_day: Positive | None = None
    """Since midnight UTC."""


class Key(Limits, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """One entry."""

    name: str
    hash: str
    models: tuple[str, ...] = ()
    """Those it may use; none named: all."""
    created: float = 0.0
    """Seconds since 1970."""
    expires: float | None = None


class KeyFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    version: int = VERSION
    keys: tuple[Key, ...] = ()


def new_secret() -> str:
    """A key; shown once and kept nowhere."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_of(secret: str) -> str:
    """How a key stands in the file."""
    return "sha256:" + hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def read(path: Path) -> KeyFile:
    """Raises KeyFileError."""
    try:
        content = msgspec.json.decode(path.read_bytes(), type=KeyFile)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise KeyFileError(f"{path}: {error}") from error
    if content.version != VERSION:
        raise KeyFileError(f"{path}: version {content.version} is not understood")
    names = [key.name for key in content.keys]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise KeyFileError(f"{path}: there are several keys named {', '.join(sorted(twice))}")
    return content


def write(path: Path, content: KeyFile) -> None:
    """Replace the file at once, for its owner alone; a reader sees the old one or the new one."""
    text = msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n"
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other writers away. Raises OSError."""
    with Path(f"{path}.lock").open("a", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
