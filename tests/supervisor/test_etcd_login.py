"""The password of an embedded etcd, in the real one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from supervisor.etcd_login import LoginNotSetError, require_login
from supervisor.layout import Layout
from supervisor.services import embed_etcd, free_ports, server_environment

pytestmark = pytest.mark.process


def test_a_password_is_set_once(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state", {})
    layout.create()
    environ = server_environment(os.environ)

    def set_password(password: str) -> None:
        port, peer_port = free_ports(2)
        etcd = embed_etcd(layout, environ, port, peer_port)
        ready = etcd.server.ready_mark
        require_login(etcd.server.argv, etcd.url, ready, layout.etcd, password, environ)

    set_password("first")
    marks = sorted(path.name for path in layout.state.iterdir())
    set_password("second")

    assert "etcd-asks-for-a-password" in marks


def test_an_etcd_that_ends_is_an_error_that_says_what_it_said(tmp_path: Path) -> None:
    argv = ("sh", "-c", "echo no room >&2")
    with pytest.raises(LoginNotSetError, match="it ended: no room"):
        require_login(argv, "http://127.0.0.1:1", b"ready", tmp_path / "etcd", "p", {})

    assert list(tmp_path.iterdir()) == []
