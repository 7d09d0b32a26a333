from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from supervisor.follow import Follower

DEADLINE_S = 10.0


def test_lines_come_as_they_are_written_and_only_when_complete(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"before\nalready ")

    async def follow() -> list[bytes]:
        lines: asyncio.Queue[bytes] = asyncio.Queue(10)
        follower = Follower(path, len(b"before\n"), lines.put_nowait)
        seen = []
        with path.open("ab", buffering=0) as file:
            file.write(b"there\n")
            seen.append(await lines.get())
            file.write(b"half")
            file.write(b" and half\nlast\nunfinished")
            seen += [await lines.get(), await lines.get()]
        follower.close()
        assert lines.empty()
        return seen

    assert asyncio.run(asyncio.wait_for(follow(), DEADLINE_S)) == [
        b"already there",
        b"half and half",
        b"last",
    ]


def test_nothing_comes_after_close_even_from_within_a_call(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_bytes(b"one\ntwo\n")

    async def follow() -> list[bytes]:
        seen: list[bytes] = []
        called = asyncio.Event()

        def on_line(line: bytes) -> None:
            seen.append(line)
            follower.close()
            called.set()

        follower = Follower(path, 0, on_line)
        await asyncio.wait_for(called.wait(), DEADLINE_S)
        follower.close()
        return seen

    assert asyncio.run(follow()) == [b"one"]


def test_a_missing_file_cannot_be_followed(tmp_path: Path) -> None:
    async def follow() -> None:
        Follower(tmp_path / "none", 0, print)

    with pytest.raises(FileNotFoundError):
        asyncio.run(follow())
