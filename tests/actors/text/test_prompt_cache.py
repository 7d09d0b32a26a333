"""The cache of tokenised parts: the same ids, less work, bounded memory."""

from __future__ import annotations

import random
import threading

import pytest

from actors.text.prompt_cache import PromptCache
from tests.service import tokenizer

WORDS = ["What", "is", "the", "capital", "of France?", "Paris;", "naïve", "café", "日本", "\n\n"]


def conversation(turns: int, seed: int = 1) -> list[dict[str, str]]:
    rng = random.Random(seed)
    return [
        {
            "role": "user" if turn % 2 == 0 else "assistant",
            "content": " ".join(rng.choices(WORDS, k=rng.randrange(1, 200))),
        }
        for turn in range(turns)
    ]


def rendered(turns: int, seed: int = 1) -> str:
    return tokenizer().chat_templates.render(conversation(turns, seed))


def plain(text: str) -> bytes:
    return tokenizer().encode(text, add_special_tokens=False)


def test_every_turn_has_the_ids_of_the_whole_and_costs_what_is_new() -> None:
    cache = PromptCache(tokenizer(), 10_000_000)

    for turns in range(1, 20, 2):
        text, before = rendered(turns), cache.misses
        assert cache.encode(text) == plain(text)
        assert cache.encode(text) == plain(text), "all of it known"
        longest = max(len(one["content"]) for one in conversation(turns)[-3:])
        assert turns == 1 or cache.misses - before <= 3 * longest + 1000

    assert cache.hits > 5 * cache.misses


def test_the_demonstration_model_s_marks_are_those_of_its_template() -> None:
    assert "<|eot_id|>" in tokenizer().cut_marks


def test_memory_is_bounded_and_the_longest_unused_goes_first() -> None:
    cache = PromptCache(tokenizer(), 20_000)
    kept = rendered(9, seed=0)

    for seed in range(30):
        cache.encode(rendered(9, seed))
        cache.encode(kept)
        assert 0 < cache.size_bytes <= 20_000

    before = cache.misses
    cache.encode(kept)
    assert cache.misses - before < len(kept) / 2


def test_without_room_nothing_is_kept() -> None:
    cache = PromptCache(tokenizer(), 0)

    assert cache.encode(rendered(9)) == plain(rendered(9))
    assert len(cache) == 0


def test_text_that_has_no_utf_8_form_is_refused_and_not_kept() -> None:
    cache = PromptCache(tokenizer(), 10_000_000)

    for _ in range(2):
        with pytest.raises(ValueError, match="surrogates"):
            cache.encode(rendered(9) + "\ud800")


def test_threads_may_share_it() -> None:
    cache = PromptCache(tokenizer(), 30_000)
    wrong: list[int] = []

    def work(seed: int) -> None:
        texts = [rendered(turns, seed % 3) for turns in range(1, 16, 2)]
        wrong.extend(seed for text in texts if cache.encode(text) != plain(text))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not wrong
