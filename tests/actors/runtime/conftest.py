"""The real servers, started once for all tests of this folder that ask for them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.plane import Plane, running_plane


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """NATS and etcd. A test that stops one of them starts it again before it ends."""
    with running_plane(tmp_path_factory.mktemp("plane")) as running:
        yield running
