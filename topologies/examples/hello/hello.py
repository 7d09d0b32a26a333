"""An actor of one's own: it greets whoever asks, and remembers how many it has greeted."""

from __future__ import annotations

import msgspec

from actors.runtime.actor import Actor, handler
from actors.runtime.message import Message


class Greet(Message, frozen=True):
    """Answered with a greeting."""

    name: str


class Greeter(Actor):
    """Keeps its count in memory: a restarted greeter begins anew."""

    class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        greeting: str = "Hello"

    options: Options

    async def starting(self) -> None:
        self.greeted = 0

    @handler
    async def greet(self, message: Greet) -> str:
        self.greeted += 1
        return f"{self.options.greeting}, {message.name}! You are number {self.greeted}."

    def progress(self) -> tuple[int, bool]:
        return self.greeted, False
