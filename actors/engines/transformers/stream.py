"""One request on its way: which tokens may come, and when the sequence ends. Pure."""

from __future__ import annotations

from array import array

from actors.engines.base import Finish, Info, Request
from actors.engines.transformers.examiner import Examiner, examiner_of
from actors.engines.transformers.guides import Guide
from actors.engines.transformers.sampler import History
from actors.engines.transformers.sequence import Sequence, sequence_of
from actors.kv.transfer import Ticket


class Stream:
    """A request, its sequence, and how far it has come."""

    def __init__(self, request: Request, info: Info, ticket: Ticket | None) -> None:
        self.request = request
        self.sampling = request.sampling
        self.ticket = ticket
        """Of a decode: where its blocks come from."""
        self.cached_reported = False
        self.guide: Guide | None = None
        """Holds the sequence to its grammar; made before it is scheduled."""
        self.copied_bytes = 0
        """Of a decode: KV cache that was fetched for it."""
        handoff = request.handoff
        first = None if handoff is None else handoff.first_token
        self.sequence: Sequence = sequence_of(
            request.id, request.prompt, block_tokens=info.block_tokens, first_token=first
        )
        self.examiner: Examiner | None = None if handoff is not None else examiner_of(request)
        """Until it has found out about the prompt what is wanted; no business of a decode."""
        self.sequence.examined = self.examiner is not None
        tokens = self.sequence.tokens
        self._produced = 0 if first is None else 1
        self._resumed = request.resumed
        self._max_context_tokens = info.max_context_tokens
        free = self.sampling.ignore_eos and self.sampling.grammar is None
        model_ends = () if free else info.eos_token_ids
        self._ends = frozenset((*self.sampling.stop_token_ids, *model_ends))
        self._bannable = sorted(token for token in self._ends if 0 <= token < info.vocabulary)
        output = len(tokens) - self._produced - self._resumed
        self.history = History(self.sampling, tokens, tokens[output:])

    def end_examination(self) -> None:
        """What was wanted of the prompt is known: from here on it is a sequence like any other."""
        self.examiner = None
        self.sequence.examined = False

    @property
    def banned(self) -> list[int]:
        """Tokens that must not come yet, for the sake of `min_tokens`."""
        early = self._resumed + self._produced < self.sampling.min_tokens
        return self._bannable if early else []

    @property
    def guided_tokens(self) -> array[int]:
        """What the grammar has behind it when the sequence begins here: the output of earlier
        attempts, and the first token of a handoff."""
        tokens = self.sequence.tokens
        return tokens[len(tokens) - self._produced - self._resumed :]

    @property
    def plain(self) -> bool:
        """Whether the next token is the model's most likely one, and nothing more is asked."""
        return (
            self.sampling.greedy
            and self.sampling.logprobs is None
            and not self.sampling.logit_bias
            and self.guide is None
            and not self.history.wanted
            and not self.banned
        )

    def accept(self, token: int) -> tuple[bool, Finish | None]:
        """Take the next token: whether it belongs to the output, and whether it is the last."""
        if token in self._ends:
            return False, Finish.STOP
        self._produced += 1
        self.sequence.tokens.append(token)
        self.history.append(token)
        if self.guide is not None and self.guide.consume(token):
            return True, Finish.STOP
        if (
            self._produced >= self.sampling.max_tokens
            or len(self.sequence.tokens) >= self._max_context_tokens
        ):
            return True, Finish.LENGTH
        return True, None
