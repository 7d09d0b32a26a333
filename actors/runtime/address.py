"""Who a message is for: a name, an instance of it, and which life of that instance."""

from __future__ import annotations

import re

import msgspec

ANY_INCARNATION = 0
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
# No more digits than a 64-bit number has: an incarnation travels as one.
_ADDRESS = re.compile(rf"({_NAME.pattern})(?:/([0-9]{{1,18}}))?(?:#([0-9]{{1,18}}))?")


class Address(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """`role/instance`, and the incarnation that is meant.

    An incarnation grows with every restart of the instance. A message carries the one its sender
    knew; a mailbox of another incarnation refuses it, so a restarted actor never handles what was
    meant for its predecessor. `incarnation == 0` means "whichever lives now" and is for callers
    outside the conversation, such as a terminal.
    """

    role: str
    instance: int = 0
    incarnation: int = ANY_INCARNATION

    @property
    def name(self) -> str:
        """`role/instance`: what stays the same over restarts."""
        return f"{self.role}/{self.instance}"

    def __str__(self) -> str:
        if self.incarnation == ANY_INCARNATION:
            return self.name
        return f"{self.name}#{self.incarnation}"

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `role`, `role/instance` or `role/instance#incarnation`.

        Raises ValueError when the text is none of these.
        """
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise ValueError(f"not an actor address: {text!r} (expected role/instance)")
        role, instance, incarnation = match.groups()
        return cls(role, int(instance or "0"), int(incarnation or "0"))
