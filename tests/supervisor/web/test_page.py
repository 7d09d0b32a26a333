"""A real supervisor's page, looked at with a real browser."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.services import free_ports
from tests.supervisor.live import HELLO, Live, running
from tests.supervisor.web.browser import Browser, browser

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the supervisor is Linux's"),
]

NODE = """document.querySelector('tr[data-id="hello/0"]')"""


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Live]:
    with running(tmp_path / "state", str(HELLO), "--web") as live:
        live.until("ready")
        yield live


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Browser]:
    with browser(tmp_path / "profile") as page:
        yield page


def test_the_page_draws_the_tree_and_what_becomes_of_it(live: Live, page: Browser) -> None:
    url = live.status().web
    assert url is not None
    page.look(1280, 800)

    page.open(url)
    rows = page.until("""
      document.querySelectorAll('#tree tbody tr[data-id] .state').length >= 4 &&
      Object.fromEntries([...document.querySelectorAll('#tree tbody tr[data-id]')].map(
        row => [row.dataset.id, row.querySelector('.state').textContent]))
    """)
    assert rows == {row.id: row.state for row in live.status().children}
    assert page.evaluate("document.getElementById('namespace').textContent") == "hello"
    assert page.evaluate(f"{NODE}.querySelector('.restarts').textContent") == "0"

    os.kill(live.pid("hello/0"), signal.SIGKILL)
    page.until(f"{NODE}.querySelector('.restarts').textContent === '1'")
    page.until(f"{NODE}.querySelector('.state').textContent === 'running'")
    why = page.until("""document.querySelector('tr[data-of="hello/0"] .text').textContent""")
    assert why == "killed by SIGKILL"
    page.until("document.getElementById('happenings').textContent.includes('ready again')")

    live.process.send_signal(signal.SIGTERM)
    assert live.wait() == 0
    page.until("document.body.classList.contains('away')")
    assert page.until("document.getElementById('away').checkVisibility()")
    # Losing the supervisor is in order; anything else would not be.
    assert [text for text in page.complaints if "ERR_" not in text] == []
    assert {address for address in page.requested if not address.startswith(url)} == set()


def test_the_page_finds_the_next_supervisor_by_itself(tmp_path: Path, page: Browser) -> None:
    [port] = free_ports(1)
    arguments = (str(HELLO), "--web", str(port))
    pids: list[str] = []
    for _ in range(2):
        with running(tmp_path / "state", *arguments) as live:
            live.until("ready")
            if not pids:
                page.open(f"http://127.0.0.1:{port}")
            pids.append(str(live.process.pid))
            facts = "document.getElementById('facts').textContent"
            page.until(
                f"{facts}.includes('pid {pids[-1]} ') && "
                f"!document.body.classList.contains('away') && {NODE} !== null"
            )
        page.until("document.body.classList.contains('away')")
    assert pids[0] != pids[1]


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_nothing_stands_beyond_the_side_of_the_screen(
    tmp_path: Path, page: Browser, width: int, height: int
) -> None:
    # As wide as a page gets: a long path, in which nothing invites a line to break.
    topology = tmp_path / ("x" * 100) / "hello.yaml"
    topology.parent.mkdir()
    for part in HELLO.parent.iterdir():
        if part.is_file():
            shutil.copy(part, topology.parent)
    page.look(width, height)

    with running(tmp_path / "state", str(topology), "--web") as live:
        live.until("ready")
        url = live.status().web
        assert url is not None
        page.open(url)
        page.until(f"{NODE} !== null")

        assert page.evaluate("document.documentElement.scrollWidth") <= width
        state = f"{NODE}.querySelector('.state').getBoundingClientRect().right"
        assert page.evaluate(state) <= width
