"""The words between a node and its supervisor, over a real Unix socket."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from actors.runtime.errors import UNREADABLE
from actors.runtime.link import LINE_LIMIT, Beat, DrainOrder, Failing, Hello, Link, Note, Prepared

NOTES: list[Note] = [
    Hello("n", 1, 2, 3),
    Prepared({"echo/0": 7}),
    Beat(progress=1, busy=True, lag_s=0.5),
    Failing("why"),
    DrainOrder(),
]


async def hear_all(path: Path, written: bytes) -> list[object]:
    """What the other end hears of these bytes, errors included."""

    async def write(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(written)
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_unix_server(write, path):
        link = await Link.connect(path)
        heard: list[object] = []
        while True:
            try:
                note = await link.hear()
            except UNREADABLE as error:
                heard.append(type(error).__name__)
                continue
            if note is None:
                break
            heard.append(note)
        await link.close()
        link.say(DrainOrder())  # to nobody, and no error
        return heard


async def test_every_note_is_heard_as_it_was_said(tmp_path: Path) -> None:
    heard: asyncio.Queue[object] = asyncio.Queue()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(reader, writer)
        while (note := await link.hear()) is not None:
            heard.put_nowait(note)
        await link.close()
        heard.put_nowait(None)

    async with await asyncio.start_unix_server(listen, tmp_path / "s", limit=LINE_LIMIT):
        link = await Link.connect(tmp_path / "s")
        for note in NOTES:
            link.say(note)
        await link.close()

        assert [await heard.get() for _ in [*NOTES, None]] == [*NOTES, None]


async def test_a_line_that_is_no_note_is_an_error_and_the_next_is_heard(tmp_path: Path) -> None:
    written = b'{"note":"News"}\nnoise\n{"note":"Failing","reason":"\xff"\n{"note":"DrainOrder"}\n'

    assert await hear_all(tmp_path / "s", written) == [
        "ValidationError",
        "DecodeError",
        "UnicodeDecodeError",
        DrainOrder(),
    ]


async def test_a_line_cut_off_or_without_end_is_the_end(tmp_path: Path) -> None:
    assert await hear_all(tmp_path / "cut", b'{"note":"DrainOrder"}') == []
    assert await hear_all(tmp_path / "endless", b"x" * (LINE_LIMIT + 10)) == []


async def test_nobody_listening_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        await Link.connect(tmp_path / "nothing")
