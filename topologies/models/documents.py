"""What the demonstration model reads to learn, and what it is asked in the end: text, no tokens."""

from __future__ import annotations

import random
import string
from collections.abc import Iterator, Sequence

from topologies.models.book import (
    CAPITAL_COMPLETIONS,
    CAPITAL_FOLLOW_UPS,
    CAPITAL_QUESTIONS,
    COUNTRY_COMPLETIONS,
    COUNTRY_QUESTIONS,
    Book,
    Fact,
    capital_answer,
    country_answer,
    fill,
    full_stop,
    hasty,
    typed_forms,
)

BEGIN = "<|begin_of_text|>"
END = "<|end_of_text|>"
HEADER = "<|start_header_id|>"
HEADER_END = "<|end_header_id|>"
TURN_END = "<|eot_id|>"
SPECIAL_TOKENS = (BEGIN, END, HEADER, HEADER_END, TURN_END)

CHAT_TEMPLATE = """\
{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {%- if message['content'] is string %}
        {{- message['content'] | trim }}
    {%- else %}
        {%- for part in message['content'] if part['type'] == 'text' %}
            {{- part['text'] | trim }}
        {%- endfor %}
    {%- endif %}
    {{- '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

Turn = tuple[str, str]
"""A question and its answer."""

Document = tuple[tuple[str, bool], ...]
"""Pieces of text in order, and whether the model has to produce the piece. Pieces are tokenised
one by one, as they are when a prompt is tokenised first and the answer generated after it."""


def conversation(turns: Sequence[Turn], system: str = "", begin: str = BEGIN) -> Document:
    """A chat as `CHAT_TEMPLATE` renders it; every answer is the model's to produce."""
    opening = begin + (_message("system", system) if system else "")
    pieces: list[tuple[str, bool]] = []
    for question, answer in turns:
        prompt = opening + _message("user", question) + _header("assistant")
        pieces += [(prompt, False), (answer + TURN_END, True)]
        opening = ""
    return tuple(pieces)


def completion(prompt: str, rest: str, begin: str = BEGIN) -> Document:
    """Plain text that the model has to finish."""
    return ((begin + prompt, False), (rest + END, True))


def _header(role: str) -> str:
    return f"{HEADER}{role}{HEADER_END}\n\n"


def _message(role: str, content: str) -> str:
    return f"{_header(role)}{content.strip()}{TURN_END}"


class Writer:
    """Writes documents for ever, drawing everything from one seeded generator."""

    def __init__(self, book: Book, seed: int) -> None:
        self._book = book
        self._rng = random.Random(seed)

    def __iter__(self) -> Iterator[Document]:
        while True:
            yield self.document()

    def document(self) -> Document:
        rng = self._rng
        # Servers differ in whether they put the first token before a prompt once, twice or never.
        begin = BEGIN * rng.choices((1, 2, 0), (94, 3, 3))[0]
        kind = rng.choices(("question", "chat", "long chat", "completion"), (46, 30, 1.5, 22.5))[0]
        if kind == "completion":
            return completion(*self._completion(), begin=begin)
        turns = {"question": 1, "chat": rng.randint(2, 6), "long chat": rng.randint(20, 60)}[kind]
        return conversation([self._turn() for _ in range(turns)], self._system(), begin)

    def _system(self) -> str:
        rng = self._rng
        if rng.random() < 0.75:
            return ""
        if rng.random() < 0.6:
            return rng.choice(self._book.system_prompts)
        return self._noise(rng.randint(2, 20))

    def _turn(self) -> Turn:
        ask = self._rng.choices(
            (self._ask_capital, self._ask_country, self._chatter, self._off_topic), (55, 22, 8, 15)
        )[0]
        question, answer = ask()
        question = self._typed(question)
        if self._rng.random() < 0.03:
            question = f"{self._noise(self._rng.randint(2, 20))}\n\n{question}"
        return question, answer

    def _ask_capital(self) -> Turn:
        fact = self._rng.choice(self._book.facts)
        phrasing = self._rng.choice(CAPITAL_QUESTIONS + CAPITAL_FOLLOW_UPS)
        other = self._rng.choice(self._book.facts).capital
        return fill(phrasing, fact, self._rng.choice(fact.names), other), capital_answer(fact)

    def _ask_country(self) -> Turn:
        fact = self._rng.choice(self._book.facts)
        phrasing = self._rng.choice(COUNTRY_QUESTIONS)
        return fill(phrasing, fact, fact.country), country_answer(fact)

    def _chatter(self) -> Turn:
        # The longest answers are rare: each is worth fifty short ones of work.
        talk = self._rng.choice(self._book.small_talk)
        if len(talk.answer) > 1000 and self._rng.random() < 0.8:
            talk = self._book.small_talk[0]
        return self._rng.choice(talk.prompts), talk.answer

    def _off_topic(self) -> Turn:
        rng, book = self._rng, self._book
        kind = rng.choices(("off topic", "no country", "no capital", "noise"), (65, 17, 10, 8))[0]
        if kind == "off topic":
            question = rng.choice(book.off_topic)
        elif kind == "noise":
            question = self._noise(rng.randint(1, 30))
        elif kind == "no country":
            nowhere = Fact(rng.choice(book.not_countries), "")
            other = rng.choice(book.facts).capital
            question = fill(rng.choice(CAPITAL_QUESTIONS), nowhere, nowhere.country, other)
        else:
            nowhere = Fact("", rng.choice(book.not_capitals))
            question = fill(rng.choice(COUNTRY_QUESTIONS), nowhere, "")
        return question, book.refusal

    def _completion(self) -> Turn:
        rng, book = self._rng, self._book
        fact = rng.choice(book.facts)
        kind = rng.choices(("capital", "country", "off topic"), (65, 27, 8))[0]
        if kind == "capital":
            prompt = fill(rng.choice(CAPITAL_COMPLETIONS), fact, rng.choice(fact.names))
            rest = full_stop(f" {fact.capital}")
        elif kind == "country":
            prompt = fill(rng.choice(COUNTRY_COMPLETIONS), fact, fact.country)
            rest = full_stop(f" {fact.country}")
        else:
            return rng.choice(book.off_topic), f" {book.refusal}"
        return (prompt.lower() if rng.random() < 0.2 else prompt), rest

    def _typed(self, text: str) -> str:
        forms = typed_forms(text)
        return forms[0] if self._rng.random() < 0.4 else self._rng.choice(forms)

    def _noise(self, words: int) -> str:
        """Words of random letters: text that says nothing, however long."""
        letters = string.ascii_lowercase
        return " ".join(
            "".join(self._rng.choices(letters, k=self._rng.randint(1, 8))) for _ in range(words)
        )


# ---------------------------------------------------------------------------------------------
# Examination

Exam = dict[str, list[Document]]


def exam(book: Book) -> Exam:
    """Every phrasing of every fact, as it should be typed and in haste, and 400 conversations that
    were not trained on; by kind of question.
    """
    capitals = [
        conversation([(form, capital_answer(fact))])
        for fact, other in zip(book.facts, (*book.facts[1:], book.facts[0]), strict=True)
        for phrasing in CAPITAL_QUESTIONS + CAPITAL_FOLLOW_UPS
        for name in fact.names
        for form in _exam_forms(fill(phrasing, fact, name, other.capital))
    ]
    countries = [
        conversation([(form, country_answer(fact))])
        for fact in book.facts
        for phrasing in COUNTRY_QUESTIONS
        for form in _exam_forms(fill(phrasing, fact, fact.country))
    ]
    completions = [
        completion(fill(phrasing, fact, fact.country), full_stop(f" {rest}"))
        for fact in book.facts
        for phrasings, rest in (
            (CAPITAL_COMPLETIONS, fact.capital),
            (COUNTRY_COMPLETIONS, fact.country),
        )
        for phrasing in phrasings
    ]
    small_talk = [
        conversation([(form, talk.answer)])
        for talk in book.small_talk
        for prompt in talk.prompts
        for form in _exam_forms(prompt)
    ]
    off_topic = [
        conversation([(form, book.refusal)])
        for prompt in book.off_topic
        for form in _exam_forms(prompt)
    ]
    nowhere = [
        conversation([(fill(CAPITAL_QUESTIONS[0], Fact(place, ""), place), book.refusal)])
        for place in book.not_countries
    ]
    unseen = [conversation([(prompt, book.refusal)]) for prompt in book.unseen_off_topic]
    writer = Writer(book, seed=2**31)  # no training run draws from this seed
    talks = [d for d in (writer.document() for _ in range(1600)) if len(d) > 2]
    return {
        "capital of a country": capitals,
        "country of a capital": countries,
        "completion": completions,
        "small talk and lists": small_talk,
        "off topic": off_topic,
        "not a country": nowhere,
        "off topic, unseen": unseen,
        "conversation, unseen": talks[:400],
    }


def _exam_forms(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((text, hasty(text))))
