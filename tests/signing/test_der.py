from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfseal.signing import der, oids


@pytest.mark.parametrize(
    ("size", "header"), [(0, "0400"), (127, "047f"), (128, "048180"), (256, "04820100")]
)
def test_lengths_are_the_shortest(size: int, header: str) -> None:
    assert der.octets(bytes(size)).hex().startswith(header)


@pytest.mark.parametrize(("value", "encoded"), [(0, "020100"), (128, "02020080"), (-1, "0201ff")])
def test_integers_are_the_shortest(value: int, encoded: str) -> None:
    assert der.integer(value).hex() == encoded


def test_a_set_is_in_ascending_order() -> None:
    assert der.set_of(der.integer(2), der.integer(1)) == der.set_of(der.integer(1), der.integer(2))


@pytest.mark.parametrize("dotted", ["2.5.4.3", oids.SIGNED_DATA, oids.GOST_KEYS["gost2012-256"]])
def test_identifiers_come_back(dotted: str) -> None:
    assert oids.decode(oids.encode(dotted)) == dotted


def test_what_is_written_is_canonical() -> None:
    inner = der.sequence(der.oid(oids.DATA), der.integer(-129), der.NULL, der.octets(bytes(200)))
    assert der.is_canonical(der.sequence(der.explicit(0, inner), der.set_of(inner)))


@pytest.mark.parametrize(
    "data",
    [
        "",
        "3080 0000",
        "308103 020107",
        "3003 02020007",
        "3004 0202ff80",
        "1003 020107",
        "2403 040107",
        "3004 06028001",
        "3003 060181",
        "3002 0501",
        "1f0100",
        "3003 020107 00",
        "3005 020107",
    ],
)
def test_other_forms_are_not_canonical(data: str) -> None:
    assert not der.is_canonical(bytes.fromhex(data))


@given(st.binary(max_size=100))
def test_any_bytes_are_canonical_or_not(data: bytes) -> None:
    assert der.is_canonical(data) in (True, False)
