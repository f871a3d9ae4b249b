from __future__ import annotations

import pytest

from bpfseal.signing import der, names


def name(*attributes: tuple[str, int, bytes]) -> bytes:
    return b"".join(
        der.element(0x31, der.sequence(der.oid(oid), der.element(tag, text)))
        for oid, tag, text in attributes
    )


@pytest.mark.parametrize(
    ("contents", "text"),
    [
        (name(("2.5.4.10", 0x13, b"Org"), ("2.5.4.3", 0x0C, "é".encode())), "CN=é,O=Org"),
        (name(("2.5.4.3", 0x0C, b"a,b+c\\")), "CN=a\\,b\\+c\\\\"),
        (name(("2.5.4.3", 0x0C, b" #x ")), "CN=\\ #x\\ "),
        (name(("2.5.4.3", 0x0C, b"a\x1b[31m\n\0")), "CN=a\\1B[31m\\0A\\00"),
        (name(("2.5.4.3", 0x1E, "hé".encode("utf-16-be"))), "CN=hé"),
        (name(("1.2.3.4", 0x0C, b"x")), "1.2.3.4=x"),
        (name(("2.5.4.3", 0x0C, b"\xff")), "CN=#0c01ff"),
        (name(("2.5.4.3", 0x03, b"\0x")), "CN=#03020078"),
        (b"junk", "#6a756e6b"),
    ],
)
def test_a_name_is_text_for_people(contents: bytes, text: str) -> None:
    assert names.text_of(contents) == text
