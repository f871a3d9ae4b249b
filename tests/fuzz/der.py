"""Damage to DER: elements left out, repeated, exchanged, with other tags and lengths."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

_CONSTRUCTED: Final = 0x20
_MAX_DEPTH: Final = 24
_TAGS: Final = (0x02, 0x03, 0x04, 0x05, 0x06, 0x0C, 0x17, 0x18, 0x24, 0x30, 0x31, 0x80, 0xA0, 0xA1)


@dataclass(slots=True)
class Element:
    """An element, with those inside it if it is constructed.

    Attributes:
        tag: its first byte.
        content: the bytes of a primitive one.
        inside: the elements of a constructed one.
        form: how its length is written: ``der``, ``long``, ``indefinite``, or a number of bytes
            that it says too much.
    """

    tag: int
    content: bytes = b""
    inside: list[Element] = field(default_factory=list)
    form: str | int = "der"

    def encode(self) -> bytes:
        """Return the bytes."""
        body = b"".join(each.encode() for each in self.inside) if self.inside else self.content
        if self.form == "indefinite":
            return bytes([self.tag | _CONSTRUCTED, 0x80]) + body + bytes(2)
        size = len(body) + (self.form if isinstance(self.form, int) else 0)
        return bytes([self.tag]) + _length(max(size, 0), long=self.form == "long") + body


def _length(size: int, *, long: bool) -> bytes:
    if size < 0x80 and not long:
        return bytes([size])
    raw = size.to_bytes((size.bit_length() + 7) // 8 or 1, "big")
    if long:
        raw = bytes(2) + raw
    return bytes([0x80 | len(raw)]) + raw


def parse(data: bytes, depth: int = 0) -> list[Element] | None:
    """Return the elements that `data` is made of, or ``None`` if it is not."""
    found: list[Element] = []
    at = 0
    while at < len(data):
        if at + 2 > len(data) or data[at] & 0x1F == 0x1F:
            return None
        tag, size, start = data[at], data[at + 1], at + 2
        if size & 0x80:
            width = size & 0x7F
            if not 1 <= width <= 4:
                return None
            size = int.from_bytes(data[start : start + width], "big")
            start += width
        if start + size > len(data):
            return None
        content = data[start : start + size]
        inside = parse(content, depth + 1) if tag & _CONSTRUCTED and depth < _MAX_DEPTH else None
        found.append(Element(tag, content, inside or []))
        at = start + size
    return found


def _all(elements: list[Element]) -> list[tuple[list[Element], int]]:
    places: list[tuple[list[Element], int]] = []
    waiting = [elements]
    while waiting:
        siblings = waiting.pop()
        for number, each in enumerate(siblings):
            places.append((siblings, number))
            waiting.append(each.inside)
    return places


def mutate_der(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """Damage one element; the lengths around it are made right again."""
    elements = parse(data)
    places = _all(elements) if elements else []
    if not elements or not places:
        at = chance.randrange(len(data) + 1)
        return data[:at] + chance.randbytes(1) + data[at + 1 :]
    siblings, number = chance.choice(places)
    chosen = siblings[number]
    match chance.randrange(13):
        case 0:
            del siblings[number]
        case 1:
            siblings[number:number] = [chosen] * chance.choice((1, 1, 2, 50))
        case 2:
            chosen.tag = chance.choice((*_TAGS, chance.randrange(256)))
        case 3:
            chosen.form = chance.choice(("long", "indefinite", "indefinite", 1, -1, 1000, 1 << 31))
        case 4:
            other, there = chance.choice(places)
            siblings[number] = _copy(other[there])
        case 5:
            donor = parse(chance.choice(others))
            if donor:
                other, there = chance.choice(_all(donor))
                siblings[number] = other[there]
        case 6:
            siblings[number] = Element(chance.choice((0x30, 0x31, 0xA0, 0x24)), inside=[chosen])
        case 7:
            deep = chosen
            for _ in range(chance.choice((20, 60, 2000))):
                deep = Element(0x30, deep.encode())
            siblings[number] = deep
        case 8:
            chosen.inside = []
            chosen.content = b""
        case 9:
            chance.shuffle(siblings)
        case _:
            if chosen.inside:
                chosen.inside.reverse()
            else:
                chosen.content = _damaged(chosen.content, chance)
    return b"".join(each.encode() for each in elements)


def _copy(element: Element) -> Element:
    return Element(element.tag, element.content, [_copy(each) for each in element.inside])


def _damaged(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content or b"\0")
    changed[chance.randrange(len(changed))] = chance.choice(
        (0, 1, 0x7F, 0x80, 0xFF, chance.getrandbits(8))
    )
    if chance.randrange(4) == 0:
        return bytes(changed) + chance.randbytes(chance.choice((1, 8, 40)))
    return bytes(changed)
