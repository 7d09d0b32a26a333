"""`supervise keys`."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.access.keyfile import hash_of, read
from supervisor.cli.main import main


def test_a_key_is_made_shown_once_listed_and_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys.json"
    at = ["--keys", str(file)]

    assert main(["keys", "create", "alice", *at, "--concurrency", "2", "--models", "a,b"]) == 0
    secret = capsys.readouterr().out.strip()
    [key] = read(file).keys
    assert (key.hash, key.concurrency, key.models) == (hash_of(secret), 2, ("a", "b"))

    assert main(["keys", "list", *at]) == 0
    listed = capsys.readouterr().out
    assert "alice" in listed
    assert "2 at a time; models a, b" in listed
    assert secret not in listed

    assert main(["keys", "create", "alice", *at]) == 1
    assert main(["keys", "revoke", "alice", *at]) == 0
    assert read(file).keys == ()
    assert main(["keys", "revoke", "alice", *at]) == 1
    assert "no key named 'alice'" in capsys.readouterr().err


def test_a_key_needs_a_name(tmp_path: Path) -> None:
    assert main(["keys", "create", "--keys", str(tmp_path / "k")]) == 2
