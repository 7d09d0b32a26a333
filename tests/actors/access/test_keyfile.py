"""The file of keys."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from actors.access.keyfile import Key, KeyFile, KeyFileError, hash_of, new_secret, read, write


def test_what_was_written_is_read_again_and_is_its_owners_alone(tmp_path: Path) -> None:
    path, secret = tmp_path / "keys.json", new_secret()
    content = KeyFile(keys=(Key(name="a", hash=hash_of(secret), requests_per_minute=5),))

    write(path, content)

    assert read(path) == content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret not in path.read_text()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "truncated"),
        ("{}x", "trailing"),
        ('{"version": 2}', "version 2"),
        ('{"keys": [{"name": "a"}]}', "hash"),
        ('{"keys": [{"name": "a", "hash": "h", "concurency": 1}]}', "concurency"),
        ('{"keys": [{"name": "a", "hash": "h", "concurrency": 0}]}', "concurrency"),
        ('{"keys": [{"name": "a", "hash": "h"}, {"name": "a", "hash": "i"}]}', "several keys"),
    ],
)
def test_a_file_that_is_not_one_is_refused_with_the_reason(
    tmp_path: Path, text: str, why: str
) -> None:
    path = tmp_path / "keys.json"
    path.write_text(text)

    with pytest.raises(KeyFileError, match=why):
        read(path)
