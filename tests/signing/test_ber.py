"""The rules of the kernel's decoder (lib/asn1_decoder.c), each with the smallest grammar for it."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfseal.signing import ber, grammar
from bpfseal.signing.ber import (
    Anything,
    Choice,
    Container,
    Element,
    Item,
    Noted,
    Optional,
    Primitive,
    RefusedError,
)

NUMBER = Primitive(0x02, "note")
NUMBERS = Container(0x30, (NUMBER,), repeats=True)
THEN_REFUSED = Container(0x30, (Primitive(0x02, "refuse"), Primitive(0x04)))


class Notes:
    """Notes what it is told, or refuses."""

    def __init__(self) -> None:
        self.items: list[Item] = []

    def note(self, item: Item) -> None:
        self.items.append(item)

    def refuse(self, _item: Item) -> None:
        raise RefusedError(errno.ENOPKG, "no")


def values(element: Element, message: str) -> list[str]:
    notes = Notes()
    ber.walk(element, bytes.fromhex(message), notes)
    return [item.value.hex() for item in notes.items]


def refused(element: Element, message: str) -> int:
    with pytest.raises(RefusedError) as caught:
        values(element, message)
    return caught.value.errno


@pytest.mark.parametrize(
    "message",
    [
        "3003 020107",
        "308103 020107",
        "30820003 020107",
        "3004 02810107",
        "3080 020107 0000",
        "1003 020107",
        "3003 020107 ffff",
    ],
    ids=["DER", "81", "82", "inner 81", "indefinite", "not constructed", "bytes behind"],
)
def test_these_forms_are_taken(message: str) -> None:
    assert values(NUMBERS, message) == ["07"]


@pytest.mark.parametrize(
    "message",
    [
        "",
        "30",
        "3000",
        "3083000003 020107",
        "3003 028001",
        "1080 020107 0000",
        "3080 020107",
        "3080 020107 0001",
        "3004 020107",
        "3004 02010700",
        "3f03 020107",
        "3003 220107",
        "3102 020107",
    ],
    ids=[
        "nothing",
        "half a header",
        "OF without an element",
        "length of three bytes",
        "indefinite primitive",
        "indefinite, not constructed",
        "no end mark",
        "half an end mark",
        "longer than there is",
        "half an element behind the last",
        "long tag",
        "constructed primitive",
        "another tag",
    ],
)
def test_these_forms_are_ebadmsg(message: str) -> None:
    assert refused(NUMBERS, message) == errno.EBADMSG


def test_an_action_refuses_before_the_structure_behind_it_is_looked_at() -> None:
    assert refused(THEN_REFUSED, "3004 020107 05") == errno.ENOPKG
    assert refused(THEN_REFUSED, "3004 050107 05") == errno.EBADMSG


def test_a_choice_at_the_end_may_be_missing_if_something_matched_before() -> None:
    choice = Choice((Primitive(0x04), Primitive(0x05)))
    assert values(Container(0x30, (NUMBER, choice)), "3003 020107") == ["07"]
    assert refused(Container(0x30, (NUMBER, choice)), "3005 020107 0600") == errno.EBADMSG


def test_an_any_with_an_indefinite_length_is_told_with_its_end_mark() -> None:
    anything = Container(0x30, (Anything("note"),))
    assert values(anything, "3007 3080 020107 0000") == ["0201070000"]


def test_an_optional_any_takes_the_end_mark_of_its_container() -> None:
    algorithm = Container(0x30, (Primitive(0x06), Optional(Anything())))
    assert refused(algorithm, "3080 060155 0000") == errno.EBADMSG
    assert values(algorithm, "3080 060155 0500 0000") == []


def test_a_container_is_told_without_its_end_mark() -> None:
    noted = Noted(Container(0x30, (Primitive(0x02),)), "note")
    assert values(noted, "3080 020107 0000") == ["020107"]


def test_more_than_65535_bytes_are_emsgsize() -> None:
    with pytest.raises(RefusedError) as caught:
        ber.walk(NUMBERS, bytes(65536), Notes())
    assert caught.value.errno == errno.EMSGSIZE


def test_the_end_of_a_message_is_found() -> None:
    assert ber.end_of(bytes.fromhex("3080 3080 0000 0000 ff")) == 8


@given(st.binary(max_size=120))
def test_no_input_raises_anything_else(data: bytes) -> None:
    for each in (NUMBERS, grammar.RSA_PUBLIC_KEY):
        try:
            ber.walk(each, data, _Deaf())
        except RefusedError:
            continue


class _Deaf:
    def __getattr__(self, name: str) -> object:
        return lambda _item: None
