"""The forward passes of prompts about which something is to be found out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from actors.engines.transformers.examiner import Rows
from actors.engines.transformers.runner import Runner
from actors.engines.transformers.scheduler import Piece
from actors.engines.transformers.stream import Stream
from actors.engines.transformers.work import Work


def work_of(piece: Piece) -> Work:
    """What a piece contributes to a forward pass."""
    tokens = piece.sequence.tokens[piece.start : piece.start + piece.length]
    return Work(tokens, piece.start, piece.sequence.blocks)


def examine(
    runner: Runner, pieces: Sequence[Piece], streams: Mapping[int, Stream]
) -> Iterator[tuple[Piece, Rows]]:
    """Compute pieces of examined prompts, each with the rows that its examiner wants."""
    together: list[Piece] = []
    for piece in pieces:
        examiner = streams[piece.sequence.id].examiner
        assert examiner is not None, "only examined prompts come here"
        if examiner.wanted == "states":
            together.append(piece)
        else:
            # One at a time: each is as large as its tokens times the vocabulary.
            [rows] = runner.examine([work_of(piece)], "logits")
            yield piece, rows
    found = runner.examine([work_of(piece) for piece in together], "states") if together else []
    yield from zip(together, found, strict=True)
