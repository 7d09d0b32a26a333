"""Train `understudy/capitals`, the demonstration model: a small Llama that knows the capitals.

    python topologies/models/train_capitals.py --out DIR --seed 0

Read it from top to bottom as a lesson: facts, phrasings, documents, tokenizer, model, training,
examination, files. The facts and the small talk are data, in `facts/`. The same seed and the same
number of threads give the same weights, bit for bit, on one version of torch and one kind of CPU;
the SHA-256 of the weights is the last line printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import string
import time
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn import functional
from transformers import LlamaConfig, LlamaForCausalLM

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


# ---------------------------------------------------------------------------------------------
# Documents

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
# Tokenizer

VOCABULARY = 1024
# The split of Llama 3: contractions, words with the space before them, up to three digits,
# punctuation, line ends, spaces.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """Byte-level BPE over the texts; all 256 bytes are in it, so any text makes the round trip."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A", special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))]
    )
    return tokenizer


def tokenizer_texts(book: Book) -> list[str]:
    """What the tokenizer learns its merges from: every exam document, without special tokens."""
    texts = ["system", "user", "assistant"] * 1000  # the roles: one token each
    for documents in exam(book).values():
        for document in documents:
            for text, _ in document:
                texts.append(_plain(text))
    return texts


def _plain(text: str) -> str:
    for token in SPECIAL_TOKENS:
        text = text.replace(token, "")
    return text


@dataclass(frozen=True, slots=True)
class Encoded:
    """A document in tokens; `produced[i]` says whether the model has to produce token i."""

    tokens: list[int]
    produced: list[bool]


def encode(tokenizer: Tokenizer, document: Document) -> Encoded:
    tokens: list[int] = []
    produced: list[bool] = []
    for text, produce in document:
        piece = tokenizer.encode(text, add_special_tokens=False).ids
        tokens += piece
        produced += [produce] * len(piece)
    return Encoded(tokens, produced)


# ---------------------------------------------------------------------------------------------
# Model

CONTEXT_TOKENS = 4096


def model_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """`config.json`, in the keys that every release of Transformers since 4.45 reads."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT_TOKENS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "use_cache": True,
        "torch_dtype": "float32",
        **_token_ids(tokenizer),
    }


def _token_ids(tokenizer: Tokenizer) -> dict[str, Any]:
    ends = [tokenizer.token_to_id(END), tokenizer.token_to_id(TURN_END)]
    return {
        "bos_token_id": tokenizer.token_to_id(BEGIN),
        "eos_token_id": ends,
        "pad_token_id": ends[0],
    }


def build_model(tokenizer: Tokenizer, seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**model_config(tokenizer)))


# ---------------------------------------------------------------------------------------------
# Training

BATCH_TOKENS = 2048
POOL_DOCUMENTS = 512
PEAK_RATE = 3e-3
WARMUP_STEPS = 100


@dataclass(frozen=True, slots=True)
class Batch:
    """Documents of like length, padded at their ends. Attention is causal, so no token sees the
    padding after it, and no mask is needed.
    """

    tokens: torch.Tensor  # [documents, longest] int64
    produced: torch.Tensor  # the same shape, bool; padding is never produced

    def predictions(self, model: LlamaForCausalLM) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits `[n, vocabulary]` before each produced token, and those tokens `[n]`."""
        hidden = model.model(
            input_ids=self.tokens[:, :-1],
            # All ones, only so that nothing is inferred from its absence.
            attention_mask=torch.ones_like(self.tokens[:, :-1]),
            use_cache=False,
        ).last_hidden_state
        wanted = self.produced[:, 1:]
        return model.lm_head(hidden[wanted]), self.tokens[:, 1:][wanted]


def batches(documents: Sequence[Encoded], limit_tokens: int) -> Iterator[Batch]:
    """All documents, shortest first, in batches of at most `limit_tokens` or one document."""
    waiting: list[Encoded] = []
    for document in sorted(documents, key=lambda each: len(each.tokens)):
        if waiting and len(document.tokens) * (len(waiting) + 1) > limit_tokens:
            yield _pad(waiting)
            waiting = []
        waiting.append(document)
    if waiting:
        yield _pad(waiting)


def _pad(documents: Sequence[Encoded]) -> Batch:
    width = max(len(document.tokens) for document in documents)
    tokens = [d.tokens + [0] * (width - len(d.tokens)) for d in documents]
    produced = [d.produced + [False] * (width - len(d.tokens)) for d in documents]
    return Batch(torch.tensor(tokens), torch.tensor(produced))


def endless_batches(book: Book, tokenizer: Tokenizer, seed: int) -> Iterator[Batch]:
    """Training batches; within each pool of documents, in random order of length."""
    documents = iter(Writer(book, seed))
    rng = random.Random(seed)
    while True:
        pool = [encode(tokenizer, next(documents)) for _ in range(POOL_DOCUMENTS)]
        drawn = list(batches(pool, BATCH_TOKENS))
        rng.shuffle(drawn)
        yield from drawn


def learning_rate(step: int, steps: int) -> float:
    """A short ramp, then half a cosine down to nothing: the end is what makes it exact."""
    ramp = min(1.0, (step + 1) / WARMUP_STEPS)
    return PEAK_RATE * ramp * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def train(
    model: LlamaForCausalLM,
    source: Iterator[Batch],
    steps: int,
    report: Callable[[int, float, int], None] = lambda *_: None,
) -> None:
    """Fit the model to the produced tokens. `report` hears of each step: its number, its mean loss
    in nats a token, and how many tokens (padding too) have been read.
    """
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=PEAK_RATE, betas=(0.9, 0.98), weight_decay=0.01
    )
    model.train()
    seen_tokens = 0
    for step, batch in zip(range(steps), source, strict=False):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        loss = functional.cross_entropy(*batch.predictions(model))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seen_tokens += batch.tokens.numel()
        report(step, loss.item(), seen_tokens)
    model.eval()


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


@dataclass(frozen=True, slots=True)
class Grade:
    """How one kind of question went."""

    documents: int
    right: float
    """Share of documents that greedy decoding gets right to the last token, end token included."""
    sampled: float
    """Mean probability that sampling at temperature 1 gives exactly the expected answers."""


def grade(model: LlamaForCausalLM, documents: Sequence[Encoded]) -> Grade:
    """Examine the model in one pass over each document.

    Greedy decoding yields the expected answer exactly if each of its tokens is the most likely one
    after the prompt and the tokens before it; so no token has to be generated one by one.
    """
    right = sampled = 0.0
    with torch.inference_mode():
        for batch in batches(documents, limit_tokens=8192):
            logits, expected = batch.predictions(model)
            document = batch.produced[:, 1:].nonzero()[:, 0]
            wrong = (logits.argmax(-1) != expected).float()
            nats = functional.cross_entropy(logits, expected, reduction="none")
            count = len(batch.tokens)
            right += (torch.zeros(count).index_add(0, document, wrong) == 0).sum().item()
            sampled += torch.zeros(count).index_add(0, document, -nats).exp().sum().item()
    return Grade(len(documents), right / len(documents), sampled / len(documents))


# ---------------------------------------------------------------------------------------------
# Files


def save(model: LlamaForCausalLM, tokenizer: Tokenizer, folder: Path) -> str:
    """Write the model in the layout of the Hugging Face hub; return the SHA-256 of its weights.

    The JSON is written here rather than by `save_pretrained`, whose keys follow the release that
    wrote them: releases before 5 would not find the rotary base in what release 5 writes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, "utf-8")
    _write_json(folder / "config.json", model_config(tokenizer))
    _write_json(
        folder / "generation_config.json",
        {"do_sample": False, "max_new_tokens": 2048, **_token_ids(tokenizer)},
    )
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": CONTEXT_TOKENS,
            "bos_token": BEGIN,
            "eos_token": TURN_END,
            "pad_token": END,
            "clean_up_tokenization_spaces": False,
            # Release 4 would otherwise add token types, which the model refuses.
            "model_input_names": ["input_ids", "attention_mask"],
            # Also here, for readers that predate chat_template.jinja.
            "chat_template": CHAT_TEMPLATE,
        },
    )
    weights = {
        name: tensor.detach().contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"  # tied to the embedding
    }
    path = folder / "model.safetensors"
    save_file(weights, path, metadata={"format": "pt"})
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the demonstration model.")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--seed", type=int, default=0, help="decides every random choice")
    parser.add_argument("--steps", type=int, default=4000, help="optimizer steps (default 4000)")
    parser.add_argument("--threads", type=int, default=2, help="torch threads (default 2)")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(mode=True)
    book = load_book()
    tokenizer = train_tokenizer(tokenizer_texts(book))
    model = build_model(tokenizer, options.seed)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{len(book.facts)} facts, {parameters:,} parameters")

    begun = time.monotonic()

    def report(step: int, loss: float, seen_tokens: int) -> None:
        if step % 100 == 0 or step == options.steps - 1:
            seconds = time.monotonic() - begun
            rate = seen_tokens / seconds
            print(f"step {step:5d}  loss {loss:.5f}  {rate:6.0f} tokens/s  {seconds:4.0f} s")

    train(model, endless_batches(book, tokenizer, options.seed), options.steps, report)

    for kind, documents in exam(book).items():
        result = grade(model, [encode(tokenizer, document) for document in documents])
        print(
            f"{kind:22s} {result.documents:6d} documents  greedy {result.right:7.2%}"
            f"  temperature 1 {result.sampled:7.2%}"
        )
    print(f"weights sha256 {save(model, tokenizer, options.out)}")


if __name__ == "__main__":
    main()
