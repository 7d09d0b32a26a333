"""The terminal chat: as a pipe, as a terminal, and its conversation alone."""

from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from actors.chat import Conversation, main
from actors.engines.base import EngineError, EngineFailed
from actors.engines.simulated import SimulatedEngine, SimulatedOptions
from tests.service import CAPITALS, PATIENCE_S, encoded_chat, reference_text, tokenizer

ROOT = Path(__file__).parent.parent.parent
SLOW = {"speedup": 1, "decode_ms": {"quadratic": 0, "linear": 0, "constant": 50}}
TAKE_THE_TERMINAL = (
    "import fcntl, runpy, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "runpy.run_module('actors.chat', run_name='__main__')\n"
)
CTRL_C, CTRL_D = "\x03", "\x04"


def options(**engine: Any) -> str:
    chosen = {"kind": "simulated", "tokenizer": str(CAPITALS), "speedup": 0, **engine}
    return json.dumps({"engine": chosen})


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


# -- the conversation --------------------------------------------------------------------------


@asynccontextmanager
async def conversation(**engine: Any) -> AsyncIterator[Conversation]:
    made = SimulatedEngine(msgspec.convert({"kind": "simulated", **engine}, SimulatedOptions))
    try:
        talk = Conversation(made, await made.start(), tokenizer())
        talk.settings.seed, talk.settings.max_tokens = 5, 8
        yield talk
    finally:
        await made.close()


async def say(talk: Conversation, text: str) -> str:
    """What is written in answer."""
    pieces: list[str] = []
    assert await talk.answer(text, pieces.append) is None
    return "".join(pieces)


async def test_an_answer_is_the_model_s_and_stays_in_the_conversation() -> None:
    async with conversation(speedup=0) as talk:
        first = await say(talk, "hello")
        second = await say(talk, "more")
        talk.forget()
        third = await say(talk, "hello")

        assert first == third == reference_text(encoded_chat(user("hello")), 5, 8)
        whole = encoded_chat(user("hello"), assistant(first), user("more"))
        assert second == reference_text(whole, 5, 8)


async def test_the_oldest_turns_go_when_the_context_is_full() -> None:
    async with conversation(speedup=0, max_context_tokens=60) as talk:
        for _ in range(8):
            last = await say(talk, "hello")

        kept = talk._messages
        assert 2 <= len(kept) < 16
        assert [message["role"] for message in kept[:2]] == ["user", "assistant"]
        assert last == kept[-1]["content"]


async def test_a_message_longer_than_the_context_is_not_kept() -> None:
    async with conversation(speedup=0, max_context_tokens=60) as talk:
        problem = await talk.answer("hello " * 60, lambda _: None)

        assert problem == "that is longer than the model's context"
        assert await say(talk, "hello") == reference_text(encoded_chat(user("hello")), 5, 8)


async def test_a_question_the_engine_refuses_is_not_kept() -> None:
    async with conversation(speedup=0) as talk:
        talk.settings.max_tokens = 0
        with pytest.raises(EngineError):
            await talk.answer("hello", lambda _: None)
        talk.settings.max_tokens = 8

        assert await say(talk, "hello") == reference_text(encoded_chat(user("hello")), 5, 8)


async def test_a_cancelled_answer_is_kept_as_far_as_it_came() -> None:
    async with conversation(**SLOW) as talk:
        talk.settings.max_tokens = 10_000
        pieces: list[str] = []

        def stop_at_the_third(piece: str) -> None:
            pieces.append(piece)
            if len(pieces) == 3:
                talk.cancel()

        assert await talk.answer("hello", stop_at_the_third) is None

        answer = reference_text(encoded_chat(user("hello")), 5, 20)
        assert "".join(pieces) == talk._messages[-1]["content"]
        assert answer.startswith("".join(pieces).rstrip("\ufffd"))


async def test_an_engine_that_fails_says_so() -> None:
    async with conversation(speedup=0, faults=[{"do": "fail", "step": 3}]) as talk:
        with pytest.raises(EngineFailed):
            await talk.answer("hello", lambda _: None)


# -- the command -------------------------------------------------------------------------------


def piped(text: str, arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "actors.chat", arguments, str(ROOT)],
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
    )


@pytest.mark.process
def test_piped_questions_are_answered_and_nothing_else_is_printed() -> None:
    lines = "/set seed=5\n/set max_tokens=8\nhello\n\nhello\n/new\nhello\n"

    done = piped(lines, options())

    first = reference_text(encoded_chat(user("hello")), 5, 8)
    whole = encoded_chat(user("hello"), assistant(first), user("hello"))
    assert done.stdout == f"{first}\n{reference_text(whole, 5, 8)}\n{first}\n"
    assert done.returncode == 0
    assert "(seed is 5)" in done.stderr
    assert "(a new conversation)" in done.stderr


@pytest.mark.process
def test_mistakes_and_failures_are_told_and_the_chat_goes_on() -> None:
    lines = (
        "/set temperature=warm\n/set colour=red\n/unknown\n/set max_tokens=0\nhello\n"
        "/set max_tokens=8\nhello\nhello\n"
    )

    done = piped(lines, options(faults=[{"do": "fail", "step": 3}]))

    told = done.stderr
    assert "`$.temperature`" in told
    assert "`colour`" in told
    assert "/help" in told
    assert "(no token can follow" in told
    assert "(the fault script breaks the engine)" in told
    assert "(the engine is not running)" in told
    assert "Traceback" not in told
    assert done.returncode == 0


@pytest.mark.process
def test_a_tokenizer_that_cannot_be_loaded_is_told_and_ends_the_chat(tmp_path: Path) -> None:
    done = piped("hello\n", options(tokenizer=str(tmp_path)))

    assert done.returncode == 1
    assert "cannot be loaded" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "text prompt"),
        (["--help"], 0, "text prompt"),
        (["{"], 2, "options: "),
        (['{"engine": {"kind": "nonsense"}}'], 2, "options: "),
    ],
)
def test_arguments_that_make_no_sense_are_explained(
    arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == code
    assert says in capsys.readouterr().err


# -- the terminal ------------------------------------------------------------------------------


class Terminal:
    """What a person at a terminal sees and types."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._seen = ""

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def see(self, text: str, *, typing: str = "") -> str:
        """Wait until this is on the screen; return what came before it since the last time.

        `typing` is typed, and again while nothing happens: CPython's `input` does not notice a
        signal between drawing its prompt and beginning to wait for keys, and a person then
        presses Ctrl-C once more.
        """
        deadline = time.monotonic() + PATIENCE_S
        self.type(typing)
        while text not in self._seen:
            left = deadline - time.monotonic()
            assert left > 0, f"{text!r} does not appear: {self._seen!r}"
            if select.select([self._descriptor], [], [], min(left, 1.0) if typing else left)[0]:
                self._seen += os.read(self._descriptor, 65536).decode("utf-8", "replace")
            else:
                self.type(typing)
        before, _, self._seen = self._seen.partition(text)
        return before


@contextmanager
def terminal(arguments: str) -> Iterator[tuple[Terminal, subprocess.Popen[bytes]]]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", TAKE_THE_TERMINAL, arguments, str(ROOT)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        cwd=ROOT,
        env={**os.environ, "TERM": "dumb"},
    )
    os.close(theirs)
    try:
        yield Terminal(ours), process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(ours)


@pytest.mark.process
def test_ctrl_c_stops_the_answer_and_ctrl_d_leaves() -> None:
    with terminal(options(**SLOW)) as (screen, process):
        screen.see("Ctrl-D leaves.")
        screen.see("> ")
        screen.type("/set seed=5\n")
        screen.see("> ")

        first = reference_text(encoded_chat(user("hello")), 5, 2).split("\n")[0]
        screen.type("hello\n")
        screen.see(first)
        screen.type(CTRL_C)
        rest = screen.see("> ")
        assert len(rest) < 1000, "512 tokens would be more"

        screen.see("(Ctrl-D leaves)", typing=CTRL_C)
        screen.see("> ")

        screen.type("/set max_tokens=1\n")
        screen.see("> ")
        screen.type("/new\n")
        screen.see("> ")
        screen.type("hello\n")
        screen.see(reference_text(encoded_chat(user("hello")), 5, 1))
        screen.see("> ")

        screen.type(CTRL_D)
        assert process.wait(PATIENCE_S) == 0
