"""Which understudy steps in for whom. Pure.

An understudy stands in for a principal that *fell*, and only when it was started as just that
*part*: the entry's code, options and limits of today. Whoever was told to leave is started anew
instead, as new code or new settings may be what it was told to leave for.

One that is loaded is preferred, and of those the one that has waited longest; else one that is
still loading, as it is ahead of anything that starts now. One that has failed is not trusted until
it is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable


class _Understudy:
    __slots__ = ("part", "rehearsed")

    def __init__(self, part: str) -> None:
        self.part = part
        self.rehearsed = False


class Casting:
    """Told what becomes of principals and understudies, it names who steps in."""

    def __init__(self, fallen: Iterable[str] = ()) -> None:
        """`fallen`: principals that ended before anybody looked, and were not told to."""
        self._fallen = set(fallen)
        self._waiting: dict[str, _Understudy] = {}
        """By name, in the order in which they came to be what they are."""
        self._failed: set[str] = set()
        """Understudies whose last run ended unasked."""

    def comes(self, understudy: str, part: str) -> None:
        """An understudy can be spoken to, and is loading."""
        self._waiting[understudy] = _Understudy(part)

    def rehearsed(self, understudy: str) -> None:
        """It is loaded. Of one that is not here it means nothing."""
        waiting = self._waiting.get(understudy)
        if waiting is not None and not waiting.rehearsed:
            waiting.rehearsed = True
            # Behind those that have waited longer.
            self._waiting[understudy] = self._waiting.pop(understudy)
            self._failed.discard(understudy)

    def leaves(self, understudy: str) -> None:
        """It was told to leave, or has to be replaced: it steps in for nobody."""
        self._waiting.pop(understudy, None)

    def ended(self, name: str, *, fell: bool) -> None:
        """A process is no more; `fell`: nobody had told it to leave."""
        (self._fallen.add if fell else self._fallen.discard)(name)
        self._waiting.pop(name, None)
        (self._failed.add if fell else self._failed.discard)(name)

    def step_in(self, principal: str, part: str) -> str | None:
        """Who goes on as this principal, which is to be started; None: nobody, start it."""
        if principal not in self._fallen:
            return None
        self._fallen.discard(principal)
        fitting = [
            name
            for name, one in self._waiting.items()
            if one.part == part and (one.rehearsed or name not in self._failed)
        ]
        if not fitting:
            return None
        # `min` keeps the order of those that are alike.
        chosen = min(fitting, key=lambda name: not self._waiting[name].rehearsed)
        del self._waiting[chosen]
        return chosen
