"""The tokenizers a role has loaded, each once."""

from __future__ import annotations

import asyncio

from actors.text.tokenizer import Tokenizer


class TokenizerStore:
    """Loads tokenizers in a thread and keeps them for as long as it lives itself."""

    def __init__(self) -> None:
        self._loaded: dict[str, Tokenizer] = {}
        self._loading: dict[str, asyncio.Task[Tokenizer]] = {}

    def get(self, source: str) -> Tokenizer | None:
        """The tokenizer, if it has been loaded."""
        return self._loaded.get(source)

    async def load(self, source: str) -> Tokenizer:
        """The tokenizer, loaded at the first call. Raises TokenizerNotFound; a later call then
        tries again."""
        loaded = self._loaded.get(source)
        if loaded is not None:
            return loaded
        task = self._loading.get(source)
        if task is None:
            task = asyncio.create_task(asyncio.to_thread(Tokenizer.load, source))
            self._loading[source] = task
            task.add_done_callback(lambda done: self._loaded_one(source, done))
        # Shielded: a caller that goes away must not take the load from the others.
        return await asyncio.shield(task)

    def _loaded_one(self, source: str, task: asyncio.Task[Tokenizer]) -> None:
        del self._loading[source]
        if not task.cancelled() and task.exception() is None:
            self._loaded[source] = task.result()
