"""What is written down, and what is not."""

from __future__ import annotations

import errno
import io
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from actors.runtime import logs


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    kept = structlog.get_config()
    logs.configure(level="info", stream=stream, node="n/0")
    try:
        yield stream
    finally:
        structlog.configure(**kept)


def events(written: io.StringIO) -> list[str]:
    return [json.loads(line)["event"] for line in written.getvalue().splitlines()]


def test_a_level_holds_for_loggers_that_are_bound_already(written: io.StringIO) -> None:
    log = structlog.get_logger("x").bind(a=1)
    log.debug("one")
    logs.set_level("debug")
    log.debug("two")
    logs.set_level("error")
    log.warning("three")
    log.error("four")

    assert events(written) == ["two", "four"]


def test_an_actor_may_have_a_level_of_its_own_until_all_get_one(written: io.StringIO) -> None:
    first, second = (
        structlog.get_logger("x").bind(actor=name) for name in ("router/0#7", "router/1#8")
    )
    logs.set_level("debug", "router/0")
    first.debug("one")
    second.debug("two")
    logs.set_level("warning")
    first.info("three")

    assert events(written) == ["one"]


class Full(io.StringIO):
    """What a file is like on a device without space."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")


def test_whoever_has_a_line_that_cannot_be_written_goes_on(written: io.StringIO) -> None:
    logs.configure(level="info", stream=Full())

    structlog.get_logger("x").warning("one")
    structlog.get_logger("x").exception("two", exc_info=ValueError("three"))


class Terminal(io.StringIO):
    """Says that people read it."""

    def isatty(self) -> bool:
        return True


def test_people_get_lines_and_programs_get_json(written: io.StringIO) -> None:
    structlog.get_logger().info("seen", request="r")
    terminal = Terminal()
    logs.configure(stream=terminal, node="n/0")
    structlog.get_logger().info("seen", request="r")

    line = json.loads(written.getvalue())
    assert (line["event"], line["level"], line["node"]) == ("seen", "info", "n/0")
    assert "seen" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


def test_a_traceback_on_a_terminal_shows_no_values(written: io.StringIO) -> None:
    terminal = Terminal()
    logs.configure(stream=terminal)

    def fail(token: str) -> None:
        raise KeyError("lost")

    try:
        fail(str(90_000 + 17))  # a traceback quotes this line
    except KeyError:
        structlog.get_logger().exception("failed")

    assert "KeyError" in terminal.getvalue()
    assert "in fail" in terminal.getvalue()
    assert "90017" not in terminal.getvalue()


@pytest.mark.parametrize("entrance", ["actors.runtime.process", "actors.runtime.zygote"])
def test_a_process_of_ours_starts_without_what_draws_tracebacks(entrance: str) -> None:
    program = f"import sys, {entrance}; sys.exit(len({{'rich', 'pygments'}} & sys.modules.keys()))"

    subprocess.run([sys.executable, "-c", program], check=True)
