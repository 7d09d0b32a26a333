"""The chat page of a real service, used with a real browser."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.serving.conftest import Service, serving
from tests.supervisor.web.browser import Browser, browser

pytestmark = pytest.mark.process

LAST = "[...document.querySelectorAll('.assistant')].at(-1)"
FACTS = "[...document.querySelectorAll('.facts')].at(-1)"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    base = tmp_path_factory.mktemp("chat")
    limit = "children.ingress.options.default_max_tokens=40"
    with serving(base, "simulated.yaml", "--set", limit) as service:
        yield service


@pytest.fixture
def page(tmp_path: Path, service: Service) -> Iterator[Browser]:
    with browser(tmp_path / "profile") as page:
        page.look(1100, 800)
        page.open(service.url)
        page.until("document.getElementById('model').value")
        yield page


def say(page: Browser, text: str) -> None:
    page.evaluate(
        f"""document.getElementById('text').value = {text!r};
            document.getElementById('text').dispatchEvent(new Event('input'));
            document.getElementById('form').requestSubmit()"""
    )


def test_an_answer_streams_in_with_its_times_and_who_gave_it(
    service: Service, page: Browser
) -> None:
    assert page.evaluate("document.getElementById('model').value") == "simulated"
    say(page, "Hello!")

    page.until(f"{LAST}.textContent.length > 0 && {LAST}.classList.contains('waiting')")
    facts = page.until(f"{FACTS} && {FACTS}.textContent")
    assert "first token" in facts
    assert "tokens/s" in facts
    assert "40 tokens" in facts
    assert "by context/0 and generation/0" in facts
    assert page.evaluate("document.querySelector('.user').textContent") == "Hello!"
    assert page.complaints == []
    assert {url for url in page.requested if not url.startswith(service.url)} <= {"data:,"}


def test_stop_ends_an_answer_and_frees_the_workers(service: Service, page: Browser) -> None:
    # Within the page, as a short answer may be over before a question about it gets there.
    page.evaluate(
        """new MutationObserver((_, observer) => {
               const last = [...document.querySelectorAll('.assistant')].at(-1);
               if (!last?.textContent.length) return;
               observer.disconnect();
               window.meanwhile = document.getElementById('send').textContent;
               document.getElementById('form').requestSubmit();
           }).observe(document.body, {childList: true, subtree: true, characterData: true})"""
    )
    say(page, "Hello!")

    assert "stopped" in page.until(f"{FACTS} && {FACTS}.textContent")
    assert page.evaluate("window.meanwhile") == "Stop"
    assert page.evaluate("document.getElementById('send').textContent") == "Send"


def test_an_error_is_told_in_the_servers_words(service: Service, page: Browser) -> None:
    page.evaluate("document.getElementById('model').append(new Option('nobody', 'nobody'))")
    page.evaluate("document.getElementById('model').value = 'nobody'")
    say(page, "Hello!")

    assert "nobody" in page.until("document.querySelector('.problem')?.textContent")


def test_an_answer_goes_on_when_its_worker_is_killed(service: Service, page: Browser) -> None:
    say(page, "Hello!")
    page.until(f"{LAST}.textContent.length > 0")
    os.kill(service.live.pid("generation/0"), signal.SIGKILL)

    assert "40 tokens" in page.until(f"{FACTS} && {FACTS}.textContent")
    assert page.evaluate("document.querySelector('.problem')") is None


def test_what_is_said_stays_under_the_heading_when_it_is_longer_than_the_page(
    page: Browser,
) -> None:
    page.look(1100, 300)
    say(page, "x\n" * 30)
    page.until(f"{FACTS} && {FACTS}.textContent")

    left = "document.querySelector({!r}).getBoundingClientRect().left".format
    talk = "document.getElementById('talk')"
    assert page.evaluate(f"{talk}.scrollHeight > {talk}.clientHeight")
    # The heading has its space as padding, what is said has it as a margin.
    assert page.evaluate(f"{left('h1')} - {left('.assistant')}") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_stands_beyond_the_side_of_a_telephone(page: Browser, scheme: str) -> None:
    page.look(390, 844, scheme=scheme)
    say(page, "x" * 300)
    page.until(f"{FACTS} && {FACTS}.textContent")

    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_the_page_may_use_nothing_but_the_service(service: Service) -> None:
    connection = HTTPConnection("127.0.0.1", service.port)
    connection.request("GET", "/")
    response = connection.getresponse()
    policy, body = response.headers["Content-Security-Policy"], response.read().decode()
    connection.close()

    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "http://" not in body
    assert "https://" not in body
