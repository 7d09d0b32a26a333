"""Public names of models that operators add to those that workers declare: aliases.

An alias is a record of the registry (`actors.runtime.registry.base`), so it outlives every process,
and every ingress reads it live. It is for one kind of request, as `llmctl http add chat|completion`
made them. A name that a worker declares is for both kinds and goes before an alias of that name.
"""

from __future__ import annotations

import time
from collections.abc import Container, Iterator
from typing import Literal

import msgspec

from actors.runtime.registry.base import Records

Kind = Literal["chat", "completion"]
KINDS: tuple[Kind, ...] = ("chat", "completion")
MAX_CHARACTERS = 256
"""Of a name: more than any hub's, and little enough for a list."""


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    """What the record says. Stored as JSON, so that `etcdctl get` shows it plainly."""

    target: str
    """The name that workers declare."""
    added_at: float
    """Seconds since 1970."""


class WrongKind(Exception):
    """There is such a name, for the other kind of request only."""

    def __init__(self, name: str, kind: Kind) -> None:
        super().__init__(f"'{name}' is a {kind} model")
        self.kind = kind
        """That the name is for."""


def key_of(kind: Kind, name: str) -> str:
    """The key of an alias's record."""
    return f"models/{kind}/{name}"


def encode_alias(target: str) -> bytes:
    """The content of its record, added now."""
    return msgspec.json.encode(Alias(target=target, added_at=time.time()))


def fault_of(name: str) -> str | None:
    """What keeps a text from being a model's name; None when nothing does."""
    if not name:
        return "a name is not empty"
    if len(name) > MAX_CHARACTERS:
        return f"a name has at most {MAX_CHARACTERS} characters, this one has {len(name)}"
    if not name.isprintable() or any(letter.isspace() for letter in name):
        return f"a name has no spaces or control characters: {name!r}"
    return None


class Names:
    """The aliases as of one state of the records."""

    def __init__(self, records: Records) -> None:
        self.records = records
        """What they were read from."""
        self._aliases = dict(_read(records))

    def resolve(self, kind: Kind | None, name: str, served: Container[str]) -> str:
        """The model that a name stands for: itself, when no alias has it. `kind`: of the request;
        None where an alias of either is good. Raises WrongKind."""
        if name in served:
            return name
        for own in KINDS if kind is None else (kind,):
            alias = self._aliases.get((own, name))
            if alias is not None:
                return alias.target
        for other in KINDS:
            if (other, name) in self._aliases:
                raise WrongKind(name, other)
        return name

    def find(self, kind: Kind, name: str) -> Alias | None:
        return self._aliases.get((kind, name))

    def all(self) -> list[tuple[str, Kind, Alias]]:
        """Every alias, by name and kind."""
        return sorted(
            ((name, kind, alias) for (kind, name), alias in self._aliases.items()),
            key=lambda one: one[:2],
        )


def _read(records: Records) -> Iterator[tuple[tuple[Kind, str], Alias]]:
    for kind in KINDS:
        prefix = key_of(kind, "")
        for key, value in records.items():
            if not key.startswith(prefix):
                continue
            try:
                yield (kind, key.removeprefix(prefix)), msgspec.json.decode(value, type=Alias)
            except msgspec.MsgspecError:
                continue  # a hand with etcdctl, or a later release: no reason to serve nothing
