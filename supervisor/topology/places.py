"""Paths into a document, and where in the file the thing at a path stands."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec

Path: TypeAlias = tuple[str | int, ...]
"""`("children", 2, "options", "engine")`."""


class Place(msgspec.Struct, frozen=True):
    """A point in a source. Lines and columns count from 1; 0 means that there is none."""

    source: str
    """A file name, or what stands for it: `--set ...`, an environment variable."""
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        if self.line == 0:
            return self.source
        return f"{self.source}:{self.line}:{self.column}"


class Places(msgspec.Struct, frozen=True):
    """Where a key and its value stand; for an item of a list both are the item."""

    key: Place
    value: Place


def show_path(path: Iterable[str | int]) -> str:
    """`children[2].options.engine`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text
