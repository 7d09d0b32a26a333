"""Aliases: what a name stands for, and for which requests."""

from __future__ import annotations

import pytest

from actors.messages.names import Names, WrongKind, encode_alias, fault_of, key_of

SERVED = ("capitals",)
RECORDS = {
    key_of("chat", "fast/er"): encode_alias("capitals"),
    key_of("completion", "text"): encode_alias("capitals"),
    key_of("chat", "capitals"): encode_alias("others"),
    "models/chat/broken": b"{",
    "weather/chat/rain": encode_alias("capitals"),
}


def test_an_alias_stands_for_its_target_in_requests_of_its_kind() -> None:
    names = Names(RECORDS)

    assert names.resolve("chat", "fast/er", SERVED) == "capitals"
    assert names.resolve(None, "text", SERVED) == "capitals"
    with pytest.raises(WrongKind) as raised:
        names.resolve("completion", "fast/er", SERVED)
    assert raised.value.kind == "chat"


def test_a_worker_s_own_name_goes_before_an_alias() -> None:
    names = Names(RECORDS)

    assert names.resolve("chat", "capitals", SERVED) == "capitals"
    assert names.resolve("chat", "capitals", ()) == "others"


def test_what_nobody_has_stands_for_itself() -> None:
    assert Names(RECORDS).resolve("chat", "unheard", SERVED) == "unheard"


def test_records_that_are_no_alias_are_passed_over() -> None:
    assert [(name, kind) for name, kind, _ in Names(RECORDS).all()] == [
        ("capitals", "chat"),
        ("fast/er", "chat"),
        ("text", "completion"),
    ]


@pytest.mark.parametrize("name", ["", "a b", "a\nb", "\x1b[31m", "x" * 257])
def test_some_texts_are_no_names(name: str) -> None:
    assert fault_of(name) is not None


@pytest.mark.parametrize("name", ["gpt-4o", "org/model:7b@main", "größer"])
def test_most_texts_are_names(name: str) -> None:
    assert fault_of(name) is None
