"""How many connections there is room for."""

from __future__ import annotations

import pytest

from actors.ingress.options import IngressOptions
from actors.ingress.room import SPARE_FILES, connections
from actors.ingress.server.listener import SURPLUS


@pytest.mark.parametrize(
    ("wanted", "files", "limit"),
    [
        (None, 1 << 20, 20_000),
        (None, 20_000, 20_000 - SPARE_FILES),
        (None, 1024, 512),
        (None, 256, 128),
        (None, 1, 1),
        (7, 1024, 7),
        (50_000, 1 << 20, 50_000),
        (50_000, 1024, 512),
    ],
)
def test_the_limit_follows_requests_and_open_files(
    wanted: int | None, files: int, limit: int
) -> None:
    assert connections(wanted, IngressOptions().max_requests, files) == limit


def test_there_are_files_to_spare_for_those_who_are_told_that_there_is_no_room() -> None:
    assert SURPLUS * 4 <= SPARE_FILES
