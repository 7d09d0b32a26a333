"""Which handler answers which path."""

from __future__ import annotations

from typing import NamedTuple

from actors.ingress.server.messages import Handler


class Route(NamedTuple):
    """What is known of a path and a method."""

    pattern: str | None
    """As it was added; None for a path that is none of ours."""
    handler: Handler | None
    methods: tuple[str, ...]
    """That the path answers."""


NOWHERE = Route(None, None, ())


class Routes:
    """A table of exact paths, of paths with a name in them, and of paths that end in whatever is
    asked for."""

    def __init__(self) -> None:
        self._exact: dict[str, dict[str, Handler]] = {}
        self._named: dict[str, dict[str, Handler]] = {}
        self._below: dict[str, dict[str, Handler]] = {}

    def add(self, method: str, path: str, handler: Handler) -> None:
        """A path that ends in `/*` stands for everything below it, and one with `/*/` for any name
        there. GET answers HEAD, too."""
        table = self._exact
        if "/*" in path:
            table = self._below if path.endswith("/*") else self._named
        methods = table.setdefault(path, {})
        methods[method] = handler
        if method == "GET":
            methods["HEAD"] = handler

    @property
    def patterns(self) -> list[tuple[str, str]]:
        """Method and path of all that was added, HEAD left out."""
        return [
            (method, pattern)
            for table in (self._exact, self._named, self._below)
            for pattern, methods in table.items()
            for method in methods
            if method != "HEAD"
        ]

    def find(self, method: str, path: str) -> Route:
        methods = self._exact.get(path)
        if methods is not None:
            return Route(path, methods.get(method), tuple(sorted(methods)))
        for pattern, named in self._named.items():
            before, _, after = pattern.partition("*")
            name = path[len(before) : -len(after)]
            if name and "/" not in name and path == f"{before}{name}{after}":
                return Route(pattern, named.get(method), tuple(sorted(named)))
        for pattern, below in self._below.items():
            if path.startswith(pattern[:-1]) and len(path) >= len(pattern):
                return Route(pattern, below.get(method), tuple(sorted(below)))
        return NOWHERE
