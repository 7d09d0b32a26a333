"""`supervise keys`: make, list and revoke API keys. Needs no supervisor: it writes their file."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from actors.access.keyfile import (
    Key,
    KeyFile,
    KeyFileError,
    hash_of,
    locked,
    new_secret,
    read,
    write,
)
from supervisor.cli.arguments import Options
from supervisor.cli.main import EXIT_USAGE

EXIT_REFUSED = 1


class NotDoneError(Exception):
    """There is such a key already, or none."""


def keys(options: Options, _environ: Mapping[str, str]) -> int:
    """Do what the action says; the exit code."""
    path = options.keys_file
    if options.action != "list" and not options.name:
        print(f"supervise keys {options.action}: whose key? Give a NAME.", file=sys.stderr)
        return EXIT_USAGE
    try:
        if options.action == "list":
            _list(path)
            return 0
        with locked(path):
            if options.action == "create":
                _create(path, options)
            else:
                _revoke(path, options.name or "")
    except (KeyFileError, NotDoneError, OSError) as error:
        print(f"supervise: {error}", file=sys.stderr)
        return EXIT_REFUSED
    return 0


def _create(path: Path, options: Options) -> None:
    content = read(path) if path.exists() else KeyFile()
    name = options.name or ""
    if any(key.name == name for key in content.keys):
        raise NotDoneError(f"{path} has a key named '{name}' already; revoke it first")
    secret = new_secret()
    key = Key(
        name=name,
        hash=hash_of(secret),
        created=float(int(time.time())),
        models=tuple(model for model in options.models.split(",") if model),
        requests_per_minute=options.requests_per_minute,
        tokens_per_minute=options.tokens_per_minute,
        tokens_per_day=options.tokens_per_day,
        concurrency=options.concurrency,
    )
    write(path, msgspec.structs.replace(content, keys=(*content.keys, key)))
    print(f"The key of {name}, shown only now:", file=sys.stderr)
    print(secret)


def _revoke(path: Path, name: str) -> None:
    content = read(path)
    left = tuple(key for key in content.keys if key.name != name)
    if len(left) == len(content.keys):
        raise NotDoneError(f"{path} has no key named '{name}'")
    write(path, msgspec.structs.replace(content, keys=left))
    print(f"{name} is revoked")


def _list(path: Path) -> None:
    for key in read(path).keys:
        limits = {
            "requests/min": key.requests_per_minute,
            "tokens/min": key.tokens_per_minute,
            "tokens/day": key.tokens_per_day,
            "at a time": key.concurrency,
        }
        said = [f"{limit} {what}" for what, limit in limits.items() if limit is not None]
        said += [f"models {', '.join(key.models)}"] if key.models else []
        print(f"{key.name:<20} {'; '.join(said) or 'no limits'}")
