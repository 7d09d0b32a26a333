"""All that the demonstration model is to know: facts and small talk, which are data in `facts/`,
and the ways to ask for them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

FACTS = Path(__file__).parent / "facts"

# ---------------------------------------------------------------------------------------------
# Facts


@dataclass(frozen=True, slots=True)
class Fact:
    """A country and its capital, each as it stands inside a sentence."""

    country: str
    capital: str
    also: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Everything a question may call the country, also without its article."""
        names = (self.country, *self.also)
        bare = (name.removeprefix("the ") for name in names)
        return tuple(dict.fromkeys((*names, *bare)))


@dataclass(frozen=True, slots=True)
class SmallTalk:
    """Prompts that all get one answer."""

    prompts: tuple[str, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class Book:
    """All that the model is to know."""

    facts: tuple[Fact, ...]
    small_talk: tuple[SmallTalk, ...]
    refusal: str
    off_topic: tuple[str, ...]
    unseen_off_topic: tuple[str, ...]
    """Kept out of training."""
    not_countries: tuple[str, ...]
    not_capitals: tuple[str, ...]
    system_prompts: tuple[str, ...]


def load_book(folder: Path = FACTS) -> Book:
    """Read `capitals.yaml` and `small_talk.yaml`."""
    rows = yaml.safe_load((folder / "capitals.yaml").read_text("utf-8"))
    facts = tuple(Fact(row["country"], row["capital"], tuple(row.get("also", ()))) for row in rows)
    talk = yaml.safe_load((folder / "small_talk.yaml").read_text("utf-8"))
    small_talk = tuple(SmallTalk(tuple(x["prompts"]), x["answer"]) for x in talk["small_talk"])
    return Book(
        facts=facts,
        small_talk=(*small_talk, *lists(facts)),
        refusal=talk["refusal"],
        off_topic=tuple(talk["off_topic"]),
        unseen_off_topic=tuple(talk["unseen_off_topic"]),
        not_countries=tuple(talk["not_countries"]),
        not_capitals=tuple(talk["not_capitals"]),
        system_prompts=tuple(talk["system_prompts"]),
    )


def lists(facts: Sequence[Fact]) -> Iterator[SmallTalk]:
    """Long answers, for whoever wants to watch a stream or break one."""
    lines = [f"{sentence_case(fact.country)}: {fact.capital}" for fact in facts]
    step = len(facts) // 10
    ten = "\n".join(f"{n}. {line}" for n, line in enumerate(lines[:: step + 1], start=1))
    yield SmallTalk(
        ("List ten capitals.", "List 10 capitals.", "Name ten capitals.", "Give me ten capitals."),
        f"Here are ten capitals:\n\n{ten}",
    )
    yield SmallTalk(
        (
            "List all capitals.",
            "List all the capitals.",
            "List every capital.",
            "Name all capitals.",
        ),
        "Here are all the capitals I know:\n\n" + "\n".join(lines),
    )


# ---------------------------------------------------------------------------------------------
# Phrasings

CAPITAL_QUESTIONS = (
    "What is the capital of {country}?",
    "What's the capital of {country}?",
    "Tell me the capital of {country}.",
    "Name the capital of {country}.",
    "Which city is the capital of {country}?",
    "What city is the capital of {country}?",
    "What is the capital city of {country}?",
    "What is {possessive} capital?",
    "Can you tell me what the capital of {country} is?",
    "Do you know the capital of {country}?",
    "Please tell me the capital of {country}.",
    "The capital of {country}?",
    "Capital of {country}?",
    "{country} capital?",
    # Answered with the right capital, whichever was asked: true, and no comparison to learn.
    "Is {other} the capital of {country}?",
)
CAPITAL_FOLLOW_UPS = (
    "And of {country}?",
    "And the capital of {country}?",
    "And {country}?",
    "What about {country}?",
    "How about {country}?",
    "{country}?",
)
COUNTRY_QUESTIONS = (
    "Which country has the capital {capital}?",
    "Which country has {capital} as its capital?",
    "What country is {capital} the capital of?",
    "{capital} is the capital of which country?",
    "Of which country is {capital} the capital?",
    "{capital} is the capital of what?",
)
CAPITAL_COMPLETIONS = (
    "The capital of {country} is",
    "The capital city of {country} is",
    "{possessive} capital is",
    "Q: What is the capital of {country}?\nA:",
)
COUNTRY_COMPLETIONS = ("{capital} is the capital of", "The city of {capital} is the capital of")


def sentence_case(text: str) -> str:
    return text[:1].upper() + text[1:]


def full_stop(text: str) -> str:
    """End a sentence, once: `Washington, D.C.` brings its own dot."""
    return text if text.endswith(".") else f"{text}."


def possessive(name: str) -> str:
    """`France's`; a plural takes the apostrophe alone: `the Netherlands'`."""
    return f"{name}'" if name.startswith("the ") and name.endswith("s") else f"{name}'s"


def fill(phrasing: str, fact: Fact, name: str, other: str = "") -> str:
    """A phrasing about one fact, its country called `name`."""
    text = phrasing.format(
        country=name, possessive=possessive(name), capital=fact.capital, other=other
    )
    return sentence_case(text)


def capital_answer(fact: Fact) -> str:
    return full_stop(f"The capital of {fact.country} is {fact.capital}")


def country_answer(fact: Fact) -> str:
    return full_stop(f"{fact.capital} is the capital of {fact.country}")


def without_accents(text: str) -> str:
    parts = unicodedata.normalize("NFKD", text)
    return "".join(part for part in parts if not unicodedata.combining(part))


def hasty(text: str) -> str:
    """Small letters, no accents, no mark at the end."""
    return without_accents(text).lower().rstrip("?.!")


def typed_forms(text: str) -> tuple[str, ...]:
    """How people type a sentence, from as it should be to in haste. No form occurs twice."""
    forms = (
        text,
        text.lower(),
        text.rstrip("?.!"),
        without_accents(text),
        text.replace("'", "\N{RIGHT SINGLE QUOTATION MARK}"),
        hasty(text),
    )
    return tuple(dict.fromkeys(forms))
