"""What a client has asked, for operators who have turned `log_prompts` on."""

from __future__ import annotations

from actors.messages.submit import ChatPrompt, Prompt, TextPrompt
from actors.text.tokenizer import Tokenizer

MAX_CHARACTERS = 10_000
"""Of one prompt in the log."""


def readable(prompt: Prompt, tokenizer: Tokenizer) -> str:
    """A prompt as a person can read it, its beginning at least."""
    match prompt:
        case ChatPrompt(messages=messages):
            text = messages.decode("utf-8", "replace")
        case TextPrompt(text=text):
            pass
        case _:
            text = tokenizer.decode(prompt.tokens)
    return text[:MAX_CHARACTERS]
