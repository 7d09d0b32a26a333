"""Every message survives the wire; names and token counts are what they say."""

from __future__ import annotations

import msgspec
import pytest

from actors.messages.assign import Assigned, Rejected
from actors.messages.cache import Load, Removed, Stored
from actors.messages.events import Inventory, Placed, Placement, Report, TellInventory
from actors.messages.explain import Candidate, Explained
from actors.messages.frame import Chunk, Frame
from actors.messages.hints import Hints
from actors.messages.key import RequestKey, count_tokens
from actors.messages.route import Route
from actors.messages.sampling import Findings, Grammar, Logprobs, Sampling, TokenLogprob
from actors.messages.submit import ChatPrompt, Submit, TextPrompt, TokenPrompt
from actors.messages.work import Cancel, Decode, Fetched, Generate, Prefill, Resend
from actors.runtime.address import Address
from actors.runtime.message import Message, encode, split

KEY = RequestKey(Address("ingress", 0, 9), 2**40, 3)
CONTEXT, GENERATION = Address("context", 1, 7), Address("generation", 2, 8)
SAMPLING = Sampling(
    max_tokens=5,
    seed=2**63 - 1,
    temperature=0.5,
    stop_token_ids=(1, 2),
    logit_bias={7: -100.0},
    logprobs=3,
    grammar=Grammar("regex", "a|b"),
    prompt="logprobs",
)
LOGPROBS = [Logprobs(TokenLogprob(1, -0.5), (TokenLogprob(1, -0.5), TokenLogprob(2, -2.0)))]
MESSAGES: list[Message] = [
    Submit(KEY, "r", "m", ChatPrompt(b"[]", tools=b"[1]"), SAMPLING, b"\1\0\0\0"),
    Submit(KEY, "r", "m", TextPrompt("é", add_special_tokens=False), SAMPLING),
    Submit(KEY, "r", "m", TokenPrompt(b"\1\0\0\0"), SAMPLING),
    Submit(KEY, "r", "m", TextPrompt(""), SAMPLING, b"", Hints(2**64 - 1, 2, -1, "kv", 1.5)),
    Route(KEY, "r", "m", b"\1\0\0\0", SAMPLING, 1),
    Route(KEY, "r", "m", b"\1\0\0\0", SAMPLING, 1, Hints(explain=True)),
    Report(
        CONTEXT,
        2,
        Load(1, 2, 3, 4, 5, 6),
        1.5,
        (Stored(None, (1, 2**64 - 1)), Removed((7,))),
        (KEY,),
    ),
    TellInventory(Address("router", 0, 3)),
    Inventory(CONTEXT, 2, 0, last=True, blocks=(1, 2**64 - 1), load=Load()),
    Placed((Placement(KEY, CONTEXT, 100, 7, (2**64 - 1,)),)),
    Explained(
        KEY,
        "kv",
        4,
        16,
        (Candidate("context/0", "context", 3, 0, 1, 2, 3, None, chosen=True),),
        "?",
    ),
    Assigned(KEY, None, GENERATION, 4),
    Assigned(KEY, CONTEXT, GENERATION, 4),
    Rejected(KEY, "too_long", "no", "prompt", 1.5),
    Generate(KEY, "r", b"\1\0\0\0", SAMPLING, 1),
    Prefill(KEY, "r", b"\1\0\0\0", SAMPLING, GENERATION, 1),
    Decode(KEY, "r", b"\1\0\0\0", SAMPLING, CONTEXT, 2**32 - 1, b"\0\xff", 1),
    Fetched(KEY),
    Cancel(KEY),
    Resend(KEY, 2**20),
    Frame(GENERATION, [Chunk(1, 0, 2, [3, 4], "stop", "", 16, LOGPROBS), Chunk(2, 1, 0, [])]),
    Frame(GENERATION, [], [1, 0, 2, 3, 2**40, 1, 2**20, 2**32 - 1]),
    Frame(CONTEXT, [Chunk(1, 0, 0, [], "stop", findings=Findings(LOGPROBS, b"\0\0\x80?"))]),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_is_read_as_it_was_written(message: Message) -> None:
    body = split(encode(message, 5)).body

    assert msgspec.msgpack.decode(body, type=type(message)) == message


def test_a_key_names_the_sequence_and_the_attempt() -> None:
    assert str(KEY) == f"ingress/0#9:{2**40}.3"


def test_tokens_are_counted_by_their_size() -> None:
    assert count_tokens(b"") == 0
    assert count_tokens(b"\1\0\0\0\2\0\0\0") == 2


@pytest.mark.parametrize(
    ("sampling", "greedy"),
    [
        (Sampling(1), False),
        (Sampling(1, temperature=0.0), True),
        (Sampling(1, top_k=1), True),
        (Sampling(1, top_k=2), False),
    ],
)
def test_sampling_is_greedy_when_the_most_likely_token_always_wins(
    sampling: Sampling, *, greedy: bool
) -> None:
    assert sampling.greedy is greedy
