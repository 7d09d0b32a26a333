"""Addresses: what can be written can be read, and nothing else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.runtime.address import Address

ROLES = st.from_regex(r"[a-z][a-z0-9_-]{0,62}", fullmatch=True)
ADDRESSES = st.builds(
    Address, ROLES, st.integers(0, 10_000), st.integers(min_value=0, max_value=10**18 - 1)
)


@given(ADDRESSES)
def test_what_str_writes_parse_reads(address: Address) -> None:
    assert Address.parse(str(address)) == address


@given(ADDRESSES)
def test_the_name_is_the_address_without_its_life(address: Address) -> None:
    named = Address.parse(address.name)

    assert (named.role, named.instance, named.incarnation) == (address.role, address.instance, 0)


@given(st.text(max_size=80))
def test_any_text_is_an_address_or_a_value_error(text: str) -> None:
    try:
        address = Address.parse(text)
    except ValueError as error:
        assert "not an actor address" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert re.fullmatch("[a-z][a-z0-9_-]{0,62}", address.role)
        assert address.instance >= 0
        assert address.incarnation >= 0


@pytest.mark.parametrize(
    "text", ["", "/1", "Echo", "echo/x", "echo/-1", "echo/0#-2", "echo/1_0", "echo/+1", "1echo"]
)
def test_these_are_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="not an actor address"):
        Address.parse(text)


def test_a_role_alone_means_its_instance_0() -> None:
    assert Address.parse("router") == Address("router", 0, 0)
