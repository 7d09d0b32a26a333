"""The page's server over real sockets, with a status of ours behind it."""

from __future__ import annotations

import contextlib
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from supervisor.calls import Status
from supervisor.control import Control, Subscription
from supervisor.events import ChildReady, Event
from supervisor.web import Page, PageUnavailableError
from supervisor.web.server import HOST, READERS_LIMIT
from tests.supervisor import rows

READY = ChildReady(at=5.0, id="w/0", run=1, took_s=0.1)


class Shown:
    """A supervisor with a fixed status; its events go through the real room for them."""

    def __init__(self, directory: Path) -> None:
        nobody: Any = None  # its socket is never opened, so nobody is asked
        self.control = Control(directory / "s", nobody)
        self.answer = rows.status(rows.row("w/0", restarts=3))

    async def metrics(self) -> str:
        return "seen_total 1\n"

    async def status(self) -> Status:
        return self.answer

    def subscribe(self, recent: int) -> AbstractContextManager[Subscription]:
        return self.control.subscribe(recent)


@asynccontextmanager
async def served(directory: Path) -> AsyncIterator[tuple[Shown, Page, aiohttp.ClientSession]]:
    shown = Shown(directory)
    connector = aiohttp.TCPConnector(limit=0)
    async with Page(shown, 0) as page, aiohttp.ClientSession(page.url, connector=connector) as web:
        yield shown, page, web


async def next_message(stream: aiohttp.StreamReader) -> tuple[str, bytes]:
    """The name and content of the next server-sent event."""
    name = ""
    while line := await stream.readline():
        if line.startswith(b"event: "):
            name = line[7:].strip().decode()
        if line.startswith(b"data: "):
            return name, line[6:]
    return name, b""


async def test_the_page_is_whole_in_itself(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, _, web), web.get("/") as response:
        text = await response.text()

    assert response.content_type == "text/html"
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(?!data:)https?:", text) == []
    assert ".innerHTML" not in text


def test_no_http_server_is_imported_before_it_is_asked_for() -> None:
    script = "import sys, supervisor.cli.up; print('aiohttp.web' in sys.modules)"

    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )

    assert done.stdout == "False\n"


async def test_a_status_can_be_had_as_json(tmp_path: Path) -> None:
    async with served(tmp_path) as (shown, _, web), web.get("/status.json") as response:
        body = await response.read()

    assert msgspec.json.decode(body, type=Status) == shown.answer


async def test_a_reader_is_told_the_past_the_status_and_what_happens(tmp_path: Path) -> None:
    later = msgspec.structs.replace(READY, run=2)
    async with served(tmp_path) as (shown, _, web):
        shown.control.tell(READY)
        async with web.get("/live") as response:
            first = await next_message(response.content)
            second = await next_message(response.content)
            shown.control.tell(later)
            third = await next_message(response.content)

    assert (first[0], second[0], third[0]) == ("happening", "status", "happening")
    assert decoded(first[1]) == READY
    assert msgspec.json.decode(second[1], type=Status) == shown.answer
    assert decoded(third[1]) == later


async def test_an_event_brings_a_fresh_status_with_it(tmp_path: Path) -> None:
    async with served(tmp_path) as (shown, _, web), web.get("/live") as response:
        assert (await next_message(response.content))[0] == "status"
        shown.answer = rows.status(rows.row("w/0", restarts=4))
        shown.control.tell(READY)

        assert (await next_message(response.content))[0] == "happening"
        name, content = await next_message(response.content)

    assert name == "status"
    assert msgspec.json.decode(content, type=Status) == shown.answer


async def test_readers_are_told_of_the_end(tmp_path: Path) -> None:
    shown = Shown(tmp_path)
    async with aiohttp.ClientSession() as web:
        async with Page(shown, 0) as page:
            response = await web.get(f"{page.url}/live")
            assert (await next_message(response.content))[0] == "status"

        assert (await next_message(response.content))[0] == "bye"


async def test_a_name_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, _, web):
        for path in ("/", "/live", "/status.json"):
            async with web.get(path, headers={"Host": "evil.example"}) as response:
                assert response.status == 421


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_nothing_can_be_changed(tmp_path: Path, method: str) -> None:
    async with served(tmp_path) as (_, _, web):
        for path in ("/", "/live", "/status.json"):
            async with web.request(method, path) as response:
                assert response.status == 405


async def test_one_reader_too_many_is_sent_away_until_another_leaves(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, _, web), contextlib.AsyncExitStack() as open_pages:
        for _ in range(READERS_LIMIT):
            reader = await open_pages.enter_async_context(web.get("/live"))
            assert (await next_message(reader.content))[0] == "status"

        async with web.get("/live") as response:
            assert response.status == 503


async def test_a_port_that_is_taken_is_named() -> None:
    with socket.socket() as taken:
        taken.bind((HOST, 0))
        taken.listen()
        port = taken.getsockname()[1]

        with pytest.raises(PageUnavailableError, match=f"{HOST}:{port}"):
            await Page(Shown(Path("unused")), port).__aenter__()


def decoded(content: bytes) -> Event:
    return msgspec.json.decode(content, type=ChildReady)


async def test_prometheus_can_read_what_everybody_counts(tmp_path: Path) -> None:
    async with served(tmp_path) as (_, _, web), web.get("/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert await response.text() == "seen_total 1\n"
