"""A text prompt in the terminal over an engine in the same process: no NATS, no etcd, no HTTP.

    python -m actors.chat '{"engine": {"kind": "transformers", "model": "models/capitals"}}' DIR

`supervise chat [FILE]` calls it with the options of the file's first worker, and the file's
directory. The terminal is read on the main thread, so that line editing and Ctrl-C work as
everywhere; the engine lives on an event loop in a thread of its own.
"""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from actors.engines.base import Engine, EngineError, Finish, Info, Request
from actors.messages.key import count_tokens
from actors.messages.sampling import Sampling
from actors.text.chat_template import ChatTemplateError
from actors.text.model_files import TokenizerNotFound
from actors.text.tokenizer import Tokenizer
from actors.worker.engines import make_engine, tokenizer_source
from actors.worker.options import WorkerOptions

T = TypeVar("T")
Write = Callable[[str], object]

HELP = """\
Type a message. Ctrl-C stops an answer, Ctrl-D leaves.
  /new            forget the conversation
  /set NAME=VALUE temperature, top_p, top_k, max_tokens, seed
  /help           this"""


class Settings(msgspec.Struct, forbid_unknown_fields=True):
    """What `/set` can change."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    max_tokens: int = 512
    seed: int | None = None


class Conversation:
    """The messages so far, and how the next answer comes about. Used from the engine's loop."""

    def __init__(self, engine: Engine, info: Info, tokenizer: Tokenizer) -> None:
        self.settings = Settings()
        self._engine = engine
        self._steps = engine.steps()  # one for all answers: it is for one consumer
        self._info = info
        self._tokenizer = tokenizer
        self._messages: list[dict[str, str]] = []
        self._requests = 0

    def forget(self) -> None:
        self._messages.clear()

    async def answer(self, text: str, write: Write) -> str | None:
        """Write the answer piece by piece; return what went wrong, if something did.

        A cancelled answer stays in the conversation as far as it came.
        """
        prompt = self._fitting_prompt({"role": "user", "content": text})
        if prompt is None:
            return "that is longer than the model's context"
        self._requests += 1
        pieces: list[str] = []
        self._engine.submit(Request(self._requests, prompt, self._sampling()))
        self._messages.append({"role": "user", "content": text})
        try:
            return await self._generate(pieces, write)
        finally:
            self._messages.append({"role": "assistant", "content": "".join(pieces)})

    def cancel(self) -> None:
        """End the answer under way."""
        self._engine.cancel(self._requests)

    async def _generate(self, pieces: list[str], write: Write) -> str | None:
        detokenizer = self._tokenizer.detokenizer()
        async for outputs in self._steps:
            for output in outputs:
                if output.id != self._requests:
                    continue
                piece = detokenizer.push(output.tokens)
                if output.finish is not None:
                    piece += detokenizer.flush()
                pieces.append(piece)
                write(piece)
                if output.finish is Finish.ERROR:
                    return output.error
                if output.finish is not None:
                    return None
        return "the engine has stopped"

    def _fitting_prompt(self, question: dict[str, str]) -> bytes | None:
        """The conversation as tokens; the oldest turns go when it outgrows the context."""
        while True:
            text = self._tokenizer.chat_templates.render([*self._messages, question])
            prompt = self._tokenizer.encode(text, add_special_tokens=False)
            if count_tokens(prompt) < self._info.max_context_tokens:
                return prompt
            if not self._messages:
                return None
            del self._messages[:2]

    def _sampling(self) -> Sampling:
        settings = self.settings
        seed = random.getrandbits(63) if settings.seed is None else settings.seed
        return Sampling(
            max_tokens=settings.max_tokens,
            seed=seed,
            temperature=settings.temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
        )


class Background:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine-loop")
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], interrupted: Callable[[], None]) -> T:
        """Wait for the work; each Ctrl-C meanwhile calls `interrupted` on the loop."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        while True:
            try:
                return future.result()
            except KeyboardInterrupt:
                self._loop.call_soon_threadsafe(interrupted)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def chat(options: WorkerOptions, base_dir: Path) -> int:
    """Load, then talk until the end of the input; return the exit code."""
    name = options.model or options.engine.model
    background = Background()
    try:
        print(f"Loading {name} ...", file=sys.stderr, flush=True)
        engine = make_engine(options.engine, base_dir)
        try:
            tokenizer = Tokenizer.load(tokenizer_source(options, base_dir))
            info = background.run(engine.start(), interrupted=lambda: None)
        except (EngineError, TokenizerNotFound) as error:
            print(f"{name} cannot be loaded: {error}", file=sys.stderr)
            return 1
        try:
            _talk(background, Conversation(engine, info, tokenizer))
        finally:
            background.run(engine.close(), interrupted=lambda: None)
        return 0
    finally:
        background.stop()


def _talk(background: Background, conversation: Conversation) -> None:
    interactive = sys.stdin.isatty()
    if interactive:
        import readline  # noqa: F401, PLC0415 - gives input() its line editing and history

        print(HELP, file=sys.stderr)
    while True:
        try:
            line = input("> " if interactive else "").strip()
        except EOFError:
            if interactive:
                print()
            return
        except KeyboardInterrupt:
            print("\n(Ctrl-D leaves)")
            continue
        if line.startswith("/"):
            print(_command(conversation, line), file=sys.stderr)
        elif line:
            _say(background, conversation, line)


def _say(background: Background, conversation: Conversation, line: str) -> None:
    def write(piece: str) -> None:
        sys.stdout.write(piece)
        sys.stdout.flush()

    try:
        problem = background.run(conversation.answer(line, write), conversation.cancel)
    except (EngineError, ChatTemplateError) as error:
        problem = str(error)
    print()
    if problem is not None:
        print(f"({problem})", file=sys.stderr)


def _command(conversation: Conversation, line: str) -> str:
    name, _, rest = line.partition(" ")
    match name:
        case "/new":
            conversation.forget()
            return "(a new conversation)"
        case "/set":
            return _set(conversation, rest)
        case _:
            return HELP


def _set(conversation: Conversation, assignment: str) -> str:
    name, _, value = assignment.partition("=")
    changed = {**msgspec.structs.asdict(conversation.settings), name.strip(): value.strip()}
    try:
        conversation.settings = msgspec.convert(changed, Settings, strict=False)
    except msgspec.ValidationError as error:
        return f"({error})"
    return f"({name.strip()} is {value.strip()})"


def main(arguments: list[str] | None = None) -> int:
    """Read the options and the directory they are relative to; talk."""
    argv = sys.argv[1:] if arguments is None else arguments
    if not argv or argv[0] in {"-h", "--help"}:
        print(__doc__, file=sys.stderr)
        return 0 if argv else 2
    try:
        options = msgspec.json.decode(argv[0].encode(), type=WorkerOptions)
    except msgspec.MsgspecError as error:
        print(f"options: {error}", file=sys.stderr)
        return 2
    return chat(options, Path(argv[1]) if len(argv) > 1 else Path.cwd())


if __name__ == "__main__":
    sys.exit(main())
