from __future__ import annotations

from actors.ingress.server import Request, Response
from actors.ingress.server.routes import NOWHERE, Routes


async def _one(_request: Request) -> Response:
    return Response(b"one")


async def _two(_request: Request) -> Response:
    return Response(b"two")


def test_a_path_has_a_handler_for_each_method_and_get_answers_head() -> None:
    routes = Routes()
    routes.add("GET", "/a", _one)
    routes.add("POST", "/a", _two)

    assert routes.find("GET", "/a").handler is _one
    assert routes.find("HEAD", "/a").handler is _one
    assert routes.find("POST", "/a").handler is _two
    assert routes.find("PUT", "/a") == ("/a", None, ("GET", "HEAD", "POST"))
    assert routes.find("GET", "/a/b") == NOWHERE


def test_a_star_stands_for_everything_below_but_not_for_nothing() -> None:
    routes = Routes()
    routes.add("GET", "/m/*", _one)
    routes.add("GET", "/m/exact", _two)

    assert routes.find("GET", "/m/a/b") == ("/m/*", _one, ("GET", "HEAD"))
    assert routes.find("GET", "/m/exact").handler is _two
    assert routes.find("GET", "/m/") == NOWHERE
    assert routes.find("GET", "/m") == NOWHERE
