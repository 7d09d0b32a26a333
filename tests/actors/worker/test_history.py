"""What a worker keeps of what it has sent: enough, and not more than it says."""

from __future__ import annotations

from actors.messages.frame import Chunk
from actors.messages.key import RequestKey
from actors.messages.sampling import Logprobs, TokenLogprob
from actors.runtime.address import Address
from actors.worker.history import ENDED_KEPT, ENDED_TOKENS_KEPT, TOKENS_KEPT, Ended, Sent

INGRESS = Address("ingress", 0, 1)


def key(number: int = 1, epoch: int = 0) -> RequestKey:
    return RequestKey(INGRESS, number, epoch)


def test_only_the_last_tokens_of_a_long_sequence_are_kept() -> None:
    sent = Sent(key(), 0)
    for offset in range(0, 10 * TOKENS_KEPT, 16):
        sent.note(Chunk(1, 0, offset, list(range(offset, offset + 16))))

    assert TOKENS_KEPT <= len(sent.tokens) < 2 * TOKENS_KEPT
    assert sent.from_(0) is None
    last = sent.from_(10 * TOKENS_KEPT - 2)
    assert last is not None
    assert last.tokens == [10 * TOKENS_KEPT - 2, 10 * TOKENS_KEPT - 1]


def test_logprobs_stay_with_their_tokens() -> None:
    sent = Sent(key(), 0)
    probabilities = [Logprobs(TokenLogprob(token, -float(token))) for token in range(3)]
    sent.note(Chunk(1, 0, 0, [0, 1], logprobs=probabilities[:2]))
    sent.note(Chunk(1, 0, 2, [2], logprobs=probabilities[2:]))

    again = sent.from_(1)

    assert again is not None
    assert again.logprobs == probabilities[1:]


def test_sequences_that_are_over_are_kept_up_to_a_number() -> None:
    ended = Ended()
    for number in range(ENDED_KEPT + 10):
        ended.add(Sent(key(number), 0, [1, 2]))

    assert len(ended) == ENDED_KEPT
    assert ended.find(key(9)) is None
    assert ended.find(key(10)) is not None


def test_sequences_that_are_over_are_kept_up_to_a_number_of_tokens() -> None:
    ended = Ended()
    for number in range(100):
        ended.add(Sent(key(number), 0, [1] * (ENDED_TOKENS_KEPT // 10)))

    assert len(ended) == 10


def test_a_later_attempt_takes_the_place_of_an_earlier_one() -> None:
    ended = Ended()
    ended.add(Sent(key(epoch=0), 0, [1]))
    ended.add(Sent(key(epoch=1), 0, [2]))

    assert ended.find(key(epoch=0)) is None
    assert ended.find(key(epoch=1)) is not None
    assert len(ended) == 1
