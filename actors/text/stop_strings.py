"""Ending a stream at a client's stop strings, whatever pieces the text arrives in.

Of several possible matches the one that is complete first wins, and among those complete at the
same character the longest. This is what a server sees that looks after every character, so the
answer does not depend on how the text was cut into pieces, and a complete match never has to wait
for text that might make a better one. "Earliest start wins" was turned down: with the stops
`abcd` and `bc` it would have to hold back `abc` although the request is already over.

The matcher is the automaton of Aho and Corasick ("Efficient string matching", CACM 18(6), 1975):
its depth after the last character is the length of the longest suffix that begins a stop string,
which is exactly what must be held back. A scan with `str.find` and a loop over suffixes is
simpler, but costs stops times length for every token, and both numbers are chosen by a client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

_ROOT = 0


class StopAutomaton:
    """Stop strings, prepared once for any number of streams (the choices of one request)."""

    def __init__(self, stops: Iterable[str]) -> None:
        """Raises ValueError on an empty stop string, which would match everywhere."""
        self.stops = tuple(dict.fromkeys(stops))
        self.edges: list[dict[str, int]] = [{}]
        self.depth: list[int] = [0]
        self.longest_match: list[str | None] = [None]
        for stop in self.stops:
            if not stop:
                raise ValueError("a stop string must not be empty")
            self._insert(stop)
        self.fallback = self._link()

    def _insert(self, stop: str) -> None:
        node = _ROOT
        for character in stop:
            following = self.edges[node].get(character)
            if following is None:
                following = len(self.edges)
                self.edges[node][character] = following
                self.edges.append({})
                self.depth.append(self.depth[node] + 1)
                self.longest_match.append(None)
            node = following
        self.longest_match[node] = stop

    def _link(self) -> list[int]:
        """Breadth first, so that a node's fallback, which is shallower, is already finished."""
        fallback = [_ROOT] * len(self.edges)
        waiting = deque(self.edges[_ROOT].values())
        while waiting:
            node = waiting.popleft()
            for character, child in self.edges[node].items():
                fallback[child] = self._next(fallback, fallback[node], character)
                if self.longest_match[child] is None:
                    self.longest_match[child] = self.longest_match[fallback[child]]
                waiting.append(child)
        return fallback

    def _next(self, fallback: list[int], node: int, character: str) -> int:
        while character not in self.edges[node]:
            if node == _ROOT:
                return _ROOT
            node = fallback[node]
        return self.edges[node][character]

    def advance(self, node: int, character: str) -> int:
        """The node after one more character."""
        return self._next(self.fallback, node, character)


class StopMatcher:
    """Passes one stream's text through and ends it at the first stop string.

    Holds back the longest suffix that could begin a stop string, and never more: at most the
    length of the longest stop string less one. With no stop strings it costs one comparison; with
    some, little more while no character of the text begins one.
    """

    __slots__ = ("_automaton", "_held", "_node", "matched")

    def __init__(self, stops: Iterable[str] | StopAutomaton) -> None:
        """Raises ValueError on an empty stop string."""
        automaton = stops if isinstance(stops, StopAutomaton) else StopAutomaton(stops)
        self._automaton = automaton if automaton.stops else None
        self._node = _ROOT
        self._held = ""
        self.matched: str | None = None
        """The stop string that ended the stream."""

    def push(self, text: str) -> tuple[str, str | None]:
        """Take the next piece; return what may go out, and the stop string once one is complete.

        The stop string itself is never part of what goes out. After a match nothing goes out any
        more, and the same stop string is returned again.
        """
        automaton = self._automaton
        if automaton is None:
            return text, None
        if self.matched is not None:
            return "", self.matched
        node = self._node
        edges = automaton.edges
        if not node and edges[_ROOT].keys().isdisjoint(text):
            return text, None
        matches = automaton.longest_match
        for position, character in enumerate(text, start=1):
            following = edges[node].get(character)
            if following is None:
                following = automaton.advance(node, character) if node else _ROOT
            node = following
            matched = matches[node]
            if matched is not None:
                before = self._held + text[:position]
                self.matched, self._held = matched, ""
                return before[: len(before) - len(matched)], matched
        self._node = node
        depth = automaton.depth[node]
        whole = self._held + text
        cut = len(whole) - depth
        self._held = whole[cut:]
        return whole[:cut], None

    def flush(self) -> str:
        """The stream is over: what was held back is text after all. Empty after a match."""
        held, self._held = self._held, ""
        self._node = _ROOT
        return held
