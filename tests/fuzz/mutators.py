"""Damage that a format's structure invites, beside damage anywhere.

A mutator takes an input, a source of chance and other inputs of the same kind, and returns a
damaged one. All chance comes from the source: the same seed gives the same damage.
"""

from __future__ import annotations

import base64
import json
import random
import re
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

from support.fuzz import mutations

from .der import mutate_der

Mutator = Callable[[bytes, random.Random, Sequence[bytes]], bytes]

GROWTH: Final = 4
ROOM: Final = 1 << 16
"""An input grows to at most `GROWTH` times the largest seed, plus `ROOM` bytes."""

_WIDTHS: Final = (1, 2, 4, 8)
_ORDERS: Final = ("little", "little", "big")


# Anywhere


def damage(data: bytes, chance: random.Random, _others: Sequence[bytes]) -> bytes:
    """Flip bits, set bytes, cut off (`support.fuzz`)."""
    return next(mutations(data, 1, chance.getrandbits(32))) if data else chance.randbytes(8)


def set_number(data: bytes, chance: random.Random, _others: Sequence[bytes]) -> bytes:
    """Set a number of 1 to 8 bytes to what sizes, counts and offsets go wrong with."""
    width = chance.choice(_WIDTHS)
    if len(data) < width:
        return data + chance.randbytes(width)
    at = chance.randrange(len(data) - width + 1)
    if chance.randrange(4):
        at -= at % width
    order: Any = chance.choice(_ORDERS)
    old = int.from_bytes(data[at : at + width], order)
    edges = (0, 1, -1, old + 1, old - 1, 2 * old, len(data), len(data) - at, 1 << 8 * width - 1)
    new = chance.choice(edges) & (1 << 8 * width) - 1
    return data[:at] + new.to_bytes(width, order) + data[at + width :]


def cut_out(data: bytes, chance: random.Random, _others: Sequence[bytes]) -> bytes:
    """Leave a piece out."""
    start, end = _piece(data, chance)
    return data[:start] + data[end:]


def repeat(data: bytes, chance: random.Random, _others: Sequence[bytes]) -> bytes:
    """Write a piece several times."""
    start, end = _piece(data, chance)
    times = chance.choice((2, 2, 3, 16, 300))
    return data[:start] + data[start:end] * times + data[end:]


def move(data: bytes, chance: random.Random, _others: Sequence[bytes]) -> bytes:
    """Put a piece elsewhere."""
    start, end = _piece(data, chance)
    rest = data[:start] + data[end:]
    at = chance.randrange(len(rest) + 1)
    return rest[:at] + data[start:end] + rest[at:]


def splice(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """Go on as another input does."""
    other = chance.choice(others)
    at = chance.randrange(len(data) + 1)
    if chance.randrange(2):
        return data[:at] + other[chance.randrange(len(other) + 1) :]
    start, end = _piece(other, chance)
    return data[:at] + other[start:end] + data[at + end - start :]


def insert(data: bytes, chance: random.Random, _others: Sequence[bytes]) -> bytes:
    """Put bytes in that are all the same, or any."""
    at = chance.randrange(len(data) + 1)
    size = chance.choice((1, 2, 4, 8, 64, 4096))
    new = chance.choice((bytes(size), b"\xff" * size, chance.randbytes(size)))
    return data[:at] + new + data[at:]


def cut_off(data: bytes, chance: random.Random, _others: Sequence[bytes]) -> bytes:
    """Leave the end away."""
    return data[: chance.randrange(len(data) + 1)]


def _piece(data: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    size = chance.choice((1, 4, 8, 16, 64, 512, len(data)))
    return start, min(start + chance.randrange(1, size + 2), len(data))


BYTES: Final[tuple[Mutator, ...]] = (
    *(damage, damage, damage, set_number, set_number, set_number),
    *(cut_out, repeat, move, splice, insert, cut_off),
)


# Text

_ODD_TEXTS: Final = (
    *(b"\0", b"\xff", b"\xed\xa0\x80", "\u2028".encode(), "\u0661".encode(), "\u00b2".encode()),
    *(b"\r", b"\n\n\n", b"\t", b" " * 300, b'"', b"'", b"\\", b"\\\n", b"#", b"/*", b"//", b"{"),
    *(b"}", b"(", b")", b"[" * 2000, b"[[", b"]]", b"=", b":", b";", b",", b"%", b"%00", b"\x1b["),
    *(b"-", b"..", b"/", b"@", b"??/", b"??=", b"*", b"*" * 40, b"a" * 5000, b"\n" * 5000),
)
_NUMBERS: Final = (
    *(b"0", b"-1", b"1", b"4294967296", b"18446744073709551616", b"-9223372036854775809"),
    *(b"9" * 5000, b"0x10", b"1e9", b"1e400", b"0x" + b"f" * 5000, b"1_0", b"+7", b"007", b"nan"),
)
_NUMBER: Final = re.compile(rb"\d+")
_WORD: Final = re.compile(rb"\w+")


def odd_text(data: bytes, chance: random.Random, _others: Sequence[bytes]) -> bytes:
    """Put a character in that texts rarely have."""
    at = chance.randrange(len(data) + 1)
    return data[:at] + chance.choice(_ODD_TEXTS) + data[at + chance.randrange(2) :]


def odd_number(data: bytes, chance: random.Random, _others: Sequence[bytes]) -> bytes:
    """Write another number in place of one."""
    return _replaced(_NUMBER, data, chance, chance.choice(_NUMBERS))


def other_word(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """Write a word of this or another text in place of one."""
    words = _WORD.findall(chance.choice((data, *others))[:ROOM])
    return _replaced(_WORD, data, chance, chance.choice(words or [b"x"]))


def change_lines(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """Write a line twice, leave it out, or take one from elsewhere."""
    lines = data.splitlines(keepends=True) or [b"\n"]
    at = chance.randrange(len(lines))
    other = chance.choice(chance.choice((data, *others)).splitlines(keepends=True) or [b"\n"])
    lines[at : at + 1] = chance.choice(
        ([], [lines[at]] * chance.choice((2, 500)), [lines[at], other], [other])
    )
    return b"".join(lines)


def _replaced(pattern: re.Pattern[bytes], data: bytes, chance: random.Random, by: bytes) -> bytes:
    found = list(pattern.finditer(data[:ROOM]))
    if not found:
        return data + by
    at = chance.choice(found)
    return data[: at.start()] + by + data[at.end() :]


TEXT: Final[tuple[Mutator, ...]] = (
    *(odd_text, odd_text, odd_number, other_word, other_word, change_lines),
    *(damage, cut_out, repeat, splice, cut_off),
)


# JSON

_ODD_VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, -1, 1, 1 << 31, 1 << 32, 1 << 63, 1 << 64, 1 << 70, -(1 << 63), 0.5),
    *("", "\0", "\ud800", "a\nb", "ok", "x" * 5000, [], {}, [[]], [{}], {"": 0}, [None] * 300),
)
_ODD_JSON: Final = (b"9" * 5000, b"NaN", b"1e400", b"[" * 100_000, b'{"a":1,"a":2}', b"-0", b"\xff")


def mutate_json(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """Change one value of a document, or what a document cannot say."""
    try:
        document = json.loads(data)
        donor = json.loads(chance.choice(others)) if chance.randrange(4) == 0 else None
    except (ValueError, RecursionError):
        return odd_text(data, chance, others)
    holders = _holders(document)
    if not holders:
        return json.dumps(chance.choice(_ODD_VALUES)).encode()
    holder, key = chance.choice(holders)
    match chance.randrange(8):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[chance.choice(["", "x", *holder])] = holder.pop(key)
        case 1 | 2 if isinstance(holder, list):
            holder.extend([holder[key]] * chance.choice((1, 100)))
        case 3 if donor is not None and _holders(donor):
            other, other_key = chance.choice(_holders(donor))
            holder[key] = other[other_key]
        case 4:
            other, other_key = chance.choice(holders)
            holder[key] = json.loads(json.dumps(other[other_key]))
        case 5:
            raw = chance.choice(_ODD_JSON)
            holder[key] = "\ue000"
            return json.dumps(document).encode().replace(b'"\\ue000"', raw, 1)
        case _:
            holder[key] = chance.choice(_ODD_VALUES)
    return json.dumps(document).encode()


def _holders(document: Any) -> list[tuple[Any, Any]]:
    """Return each place of a document: the object or array and the key or index in it."""
    found: list[tuple[Any, Any]] = []
    waiting = [document]
    while waiting:
        holder = waiting.pop()
        if isinstance(holder, dict):
            keys: list[Any] = list(holder)
        elif isinstance(holder, list):
            keys = list(range(len(holder)))
        else:
            continue
        found += ((holder, key) for key in keys)
        waiting += (holder[key] for key in keys)
    return found


JSON: Final[tuple[Mutator, ...]] = (*[mutate_json] * 6, odd_text, odd_number, damage, cut_off)


# DER and PEM

DER: Final[tuple[Mutator, ...]] = (*[mutate_der] * 6, damage, set_number, splice, cut_off, insert)

_PEM: Final = re.compile(rb"(-----BEGIN [^-]*-----\n)([A-Za-z0-9+/=\n]+)(-----END)")


def mutate_pem(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """Damage the DER inside a PEM block."""
    found = list(_PEM.finditer(data))
    if not found:
        return chance.choice(DER)(data, chance, others)
    block = chance.choice(found)
    try:
        der = base64.b64decode(block[2])
    except ValueError:
        return odd_text(data, chance, others)
    new = base64.encodebytes(chance.choice(DER)(der, chance, others))
    return data[: block.start(2)] + new + data[block.end(2) :]


PEM: Final[tuple[Mutator, ...]] = (*[mutate_pem] * 5, odd_text, change_lines, damage, splice)


# Binary formats

_SLOT: Final = 8


def mutate_insn(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """Change, swap, repeat or drop one instruction, or take one of another program."""
    count = len(data) // _SLOT
    if not count:
        return chance.randbytes(_SLOT)
    slots = [data[_SLOT * number : _SLOT * (number + 1)] for number in range(count)]
    at = chance.randrange(count)
    slot = bytearray(slots[at])
    match chance.randrange(8):
        case 0:
            slot[0] = chance.randrange(256)
        case 1:
            slot[1] = chance.randrange(256)
        case 2:
            off = chance.choice((0, 1, -1, count - at, -at, 0x7FFF, -0x8000, chance.randrange(64)))
            slot[2:4] = struct.pack("<h", max(-0x8000, min(off, 0x7FFF)))
        case 3 | 4:
            imm = chance.choice((0, 1, -1, 8, 1 << 30, -(1 << 31), chance.randrange(256)))
            slot[4:8] = struct.pack("<i", imm)
        case 5:
            slots.insert(at, slots[chance.randrange(count)])
        case 6:
            other = chance.choice(others)
            start = chance.randrange(len(other) // _SLOT + 1) * _SLOT
            slot[:] = other[start : start + _SLOT].ljust(_SLOT, b"\0")
        case _:
            del slots[at]
            return b"".join(slots)
    slots[at] = bytes(slot)
    return b"".join(slots)


INSNS: Final[tuple[Mutator, ...]] = (*[mutate_insn] * 6, damage, set_number, cut_off)

_ELF_SECTIONS: Final = struct.Struct("<Q10xHHH")
_ELF_PLACE: Final = 0x28
_SECTION_SIZE: Final = 64


def mutate_elf(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """Set a field of the ELF header, of a section's header, or a word inside a section."""
    if len(data) < _SECTION_SIZE or chance.randrange(8) == 0:
        return _within(data, 0, min(len(data), _SECTION_SIZE), chance, others)
    table, size, count, _ = _ELF_SECTIONS.unpack_from(data, _ELF_PLACE)
    if not count or size != _SECTION_SIZE or table + size * count > len(data):
        return set_number(data, chance, others)
    header = table + size * chance.randrange(count)
    if chance.randrange(3) == 0:
        return _within(data, header, header + size, chance, others)
    start, length = struct.unpack_from("<QQ", data, header + 24)
    return _within(data, start, start + length, chance, others)


def _within(
    data: bytes, start: int, end: int, chance: random.Random, others: Sequence[bytes]
) -> bytes:
    if start >= end or end > len(data):
        return set_number(data, chance, others)
    change = chance.choice((set_number, set_number, set_number, damage))
    new = change(data[start:end], chance, others)
    return data[:start] + new[: end - start].ljust(end - start, b"\0") + data[end:]


ELF: Final[tuple[Mutator, ...]] = (*[mutate_elf] * 8, damage, repeat, splice, cut_off)

_BLOCK: Final = 512


def mutate_tar(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
    """Change a header and make its checksum right, or repeat, drop or swap blocks."""
    blocks = [data[at : at + _BLOCK] for at in range(0, len(data), _BLOCK)] or [bytes(_BLOCK)]
    headers = [number for number, block in enumerate(blocks) if block[257:262] == b"ustar"]
    at = chance.choice(headers or [0])
    match chance.randrange(5):
        case 0:
            blocks.insert(chance.randrange(len(blocks) + 1), blocks[at])
        case 1:
            del blocks[chance.randrange(len(blocks))]
        case 2:
            blocks[at] = chance.choice(blocks)
        case _:
            header = bytearray(damage(blocks[at], chance, others).ljust(_BLOCK, b"\0"))
            if chance.randrange(2):
                name = chance.choice(
                    (b"//", b"./index.json", b"index.json", b"oci-layout/", b"a/..")
                )
                header[:100] = name.ljust(100, b"\0")
            header[148:156] = b" " * 8
            header[148:156] = b"%06o\0 " % sum(header)
            blocks[at] = bytes(header)
    return b"".join(blocks)


TAR: Final[tuple[Mutator, ...]] = (*[mutate_tar] * 3, *BYTES)


# Several parts in one input

_LENGTH: Final = struct.Struct("<I")


def join(*parts: bytes) -> bytes:
    """Return one input of several: each but the last with its length in front."""
    framed = [_LENGTH.pack(len(part)) + part for part in parts[:-1]]
    return b"".join(framed) + parts[-1]


def split(data: bytes, count: int) -> tuple[bytes, ...]:
    """Return the parts of an input, whatever it is; lengths beyond the end are cut."""
    parts = []
    for _ in range(count - 1):
        size = int.from_bytes(data[: _LENGTH.size], "little")
        data = data[_LENGTH.size :]
        parts.append(data[:size])
        data = data[size:]
    return (*parts, data)


def by_part(*kinds: tuple[Mutator, ...]) -> tuple[Mutator, ...]:
    """Return the mutators of an input of parts, each of its own kind."""
    return tuple(_of_part(number, len(kinds), kind) for number, kind in enumerate(kinds))


def _of_part(number: int, count: int, kind: tuple[Mutator, ...]) -> Mutator:
    def mutate(data: bytes, chance: random.Random, others: Sequence[bytes]) -> bytes:
        parts = list(split(data, count))
        other = (split(chance.choice(others), count)[number],)
        parts[number] = chance.choice(kind)(parts[number], chance, other)
        return join(*parts)

    return mutate


def mutate(seeds: Sequence[bytes], mutators: Sequence[Mutator], chance: random.Random) -> bytes:
    """Return a damaged seed."""
    data = chance.choice(seeds)
    for _ in range(chance.choice((1, 1, 1, 2, 2, 3, 6))):
        data = chance.choice(mutators)(data, chance, seeds)
    return data[: GROWTH * max(map(len, seeds)) + ROOM]
