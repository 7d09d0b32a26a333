"""A real headless Chromium, spoken to over a pipe in the DevTools protocol."""

from __future__ import annotations

import base64
import fcntl
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

DEADLINE_S = 60.0
"""For anything awaited here; the browser's first start on a busy machine is slow."""
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)
_UNTIL = """
new Promise(resolve => {
  const look = () => { let found; try { found = (%s); } catch { found = false; }
                       if (found) { watching.disconnect(); resolve(found); } };
  const watching = new MutationObserver(look);
  watching.observe(document, {subtree: true, childList: true, attributes: true,
                              characterData: true});
  look();
})
"""


def executable() -> str:
    """Chromium; a machine without it cannot run these tests, and must not seem to have."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        found = shutil.which(name)
        if found is not None:
            return found
    raise FileNotFoundError("chromium is not on PATH: apt-get install chromium")


class Browser:
    """One tab. What goes wrong in the page is collected in `complaints`."""

    def __init__(self, send: int, receive: int) -> None:
        self._send = send
        self._receive = receive
        self._rest = b""
        self._calls = 0
        self._session = ""
        self.complaints: list[str] = []
        self.requested: list[str] = []
        """The URL of everything the page has asked for."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._call(f"{domain}.enable")

    def open(self, url: str) -> None:
        self._call("Page.navigate", url=url)

    def look(self, width: int, height: int, *, scheme: str = "light") -> None:
        """Take on a size, and the user's preference of colours."""
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self._call("Emulation.setEmulatedMedia", features=[feature])

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page, or of its promise."""
        answer = self._call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """Its first true value, asked again at each change of the page."""
        return self.evaluate(_UNTIL % expression)

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self._session = ""
        self._call("Browser.close")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._calls += 1
        call: dict[str, Any] = {"id": self._calls, "method": method, "params": parameters}
        if self._session:
            call["sessionId"] = self._session
        content = msgspec.json.encode(call) + b"\0"
        assert os.write(self._send, content) == len(content), "a call is small"
        deadline = time.monotonic() + DEADLINE_S
        while True:
            message = self._next(deadline, method)
            if message.get("id") == self._calls:
                assert "error" not in message, f"{method}: {message['error']}"
                result: dict[str, Any] = message["result"]
                return result
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        match message.get("method"):
            case "Network.requestWillBeSent":
                self.requested.append(parameters["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(str(parameters["exceptionDetails"]))
            case "Log.entryAdded" if parameters["entry"]["level"] == "error":
                self.complaints.append(parameters["entry"]["text"])

    def _next(self, deadline: float, method: str) -> dict[str, Any]:
        while b"\0" not in self._rest:
            left = max(0.0, deadline - time.monotonic())
            readable, _, _ = select.select([self._receive], [], [], left)
            assert readable, f"the browser did not answer {method} in {DEADLINE_S} s"
            content = os.read(self._receive, 1 << 20)
            assert content, f"the browser ended during {method}"
            self._rest += content
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = msgspec.json.decode(line)
        return message


@contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """A browser with an empty profile, gone at the end with all its processes."""
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    # It reads from 3 and writes to 4, whichever numbers are free here.
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (theirs_in, theirs_out)]
    process = subprocess.Popen(
        [
            "bash",
            "-c",
            f'exec "$@" 3<&{high[0]} 4>&{high[1]}',
            "bash",
            executable(),
            *_FLAGS,
            f"--user-data-dir={profile}",
            "about:blank",
        ],
        pass_fds=high,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    for fd in (theirs_in, theirs_out, *high):
        os.close(fd)
    try:
        opened = Browser(ours_out, ours_in)
        yield opened
        opened.close()
        process.wait(DEADLINE_S)
    finally:
        with suppress(ProcessLookupError):  # it has closed in good order
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        os.close(ours_out)
        os.close(ours_in)
