"""What a difference is made of, and how it is shown; apart, so that a command line that shows one
need not import what a supervisor runs on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One value that differs."""

    path: str
    """As in the file, below the entry: `options.strategy`."""
    before: str
    after: str


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One child or supervisor that differs."""

    id: str
    what: Literal["added", "removed", "changed", "moved"]
    fields: tuple[Field, ...] = ()
    restarts: bool = False
    """Whether a process that runs is replaced for it."""


def render(items: Sequence[Item]) -> list[str]:
    """Lines for people; none when nothing differs.

    + context/1
    ~ router/0  options.strategy: round_robin -> random
    ~ worker/0  drain: 10.0 -> 30.0  (no restart)
    - preprocessor/1
    """
    lines = []
    marks = {"added": "+", "removed": "-", "changed": "~", "moved": ">"}
    for item in items:
        head = f"{marks[item.what]} {item.id}"
        told = [f"{field.path}: {field.before} -> {field.after}" for field in item.fields]
        if item.what == "moved":
            told = ["to another supervisor; stopped before it is started there"]
        elif item.what == "changed" and not item.restarts:
            told[-1] += "  (no restart)"
        lines.append(f"{head}  {told[0]}" if told else head)
        lines += [f"{'':<{len(head)}}  {text}" for text in told[1:]]
    return lines
