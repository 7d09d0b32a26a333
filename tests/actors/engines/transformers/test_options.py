from __future__ import annotations

import msgspec
import pytest

from actors.engines.transformers.options import TransformersOptions, parse_bytes


def decode(**options: object) -> TransformersOptions:
    return msgspec.convert({"kind": "transformers", "model": "m"} | options, TransformersOptions)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(5, 5), ("5", 5), ("2KiB", 2048), ("256 MiB", 2**28), ("1GB", 10**9)],
)
def test_sizes_are_read(size: int | str, expected: int) -> None:
    assert parse_bytes(size) == expected
    assert decode(kv_memory=size).kv_bytes == expected


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"kv_memory": "much"}, "not a size"),
        ({"kv_memory": 0}, "positive"),
        ({"max_running": 0}, ">= 1"),
        ({"handoff_ttl_s": 0}, "> 0"),
        ({"transport": "pigeon"}, "pigeon"),
        ({"colour": "red"}, "colour"),
        ({"deterministic": True, "dtype": "bfloat16"}, "float32"),
        ({"deterministic": True, "device": "cuda"}, "CPU only"),
        ({"transport": "shm", "device": "cuda"}, "use tcp"),
    ],
)
def test_options_that_make_no_sense_are_refused_with_a_sentence(
    options: dict[str, object], sentence: str
) -> None:
    with pytest.raises(msgspec.ValidationError, match=sentence):
        decode(**options)
