"""The .BTF.ext section (Documentation/bpf/btf.rst)."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest

from bpfseal.bpf.insn import ByteOrder
from bpfseal.btf.btf import Btf
from bpfseal.btf.ext import BtfExt, Info
from bpfseal.errors import InputError
from support.btf_writer import BtfWriter, encode_ext

FUNC_INFO = {"xdp": [(0, 3), (64, 4)], "tc": [(0, 5)]}
LINE_INFO = {"xdp": [(0, 1, 2, 3 << 10), (8, 1, 2, 4 << 10)]}
CORE_RELOS = {"tc": [(16, 1, 2, 0)]}


def sample(byteorder: ByteOrder = "little") -> tuple[Btf, bytes]:
    writer = BtfWriter()
    ext = encode_ext(
        writer, byteorder, func_info=FUNC_INFO, line_info=LINE_INFO, core_relos=CORE_RELOS
    )
    return Btf.from_bytes(writer.encode(byteorder)), ext


@pytest.mark.parametrize("byteorder", ["little", "big"])
def test_records_are_read_by_section_in_both_byte_orders(byteorder: ByteOrder) -> None:
    btf, raw = sample(byteorder)
    ext = BtfExt.from_bytes(raw, btf)
    assert {s.name: list(s.records) for s in ext.func_info.sections} == FUNC_INFO
    assert list(ext.line_info.records_of("xdp")) == LINE_INFO["xdp"]
    assert list(ext.core_relos.records_of("tc")) == CORE_RELOS["tc"]
    assert list(ext.core_relos.records_of("xdp")) == []
    assert [ext.func_info.record_size, ext.line_info.record_size] == [8, 16]


def test_a_header_of_24_bytes_has_no_core_relocations() -> None:
    btf, raw = sample()
    old = bytearray(raw[:24] + raw[32:])
    struct.pack_into("<I", old, 4, 24)
    ext = BtfExt.from_bytes(bytes(old), btf)
    assert {s.name: list(s.records) for s in ext.func_info.sections} == FUNC_INFO
    assert ext.core_relos == Info()


def test_an_empty_part_has_no_records() -> None:
    writer = BtfWriter()
    raw = encode_ext(writer, func_info=FUNC_INFO)
    ext = BtfExt.from_bytes(raw, Btf.from_bytes(writer.encode()))
    assert ext.line_info == ext.core_relos == Info()


def test_longer_records_than_known_are_kept_whole() -> None:
    writer = BtfWriter()
    words = (12, writer.string("xdp"), 1, 8, 3, 99)
    header = struct.pack("<HBBI6I", 0xEB9F, 1, 0, 32, 0, 4 * len(words), 24, 0, 24, 0)
    raw = header + struct.pack("<6I", *words)
    ext = BtfExt.from_bytes(raw, Btf.from_bytes(writer.encode()))
    assert list(ext.func_info.records_of("xdp")) == [(8, 3, 99)]


def with_word(raw: bytes, offset: int, value: int) -> bytes:
    changed = bytearray(raw)
    struct.pack_into("<I", changed, offset, value)
    return bytes(changed)


FIRST = 32
"""Where the records of func_info begin in the sample."""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw[:23], "no .BTF.ext header"),
        (lambda raw: b"\0\0" + raw[2:], "no .BTF.ext header"),
        (lambda raw: raw[:2] + b"\2" + raw[3:], r"version 2"),
        (lambda raw: with_word(raw, 4, 20), "unknown .BTF.ext header"),
        (lambda raw: with_word(raw, 4, 4096), "unknown .BTF.ext header"),
        (lambda raw: with_word(raw, 8, 2), "func_info lies outside"),
        (lambda raw: with_word(raw, 12, 4096), "func_info lies outside"),
        (lambda raw: with_word(raw, 20, 4096), "line_info lies outside"),
        (lambda raw: with_word(raw, 24, 4096), "core_relo lies outside"),
        (lambda raw: with_word(raw, 12, 3), "func_info: its size is no multiple of 4"),
        (lambda raw: with_word(raw, FIRST, 4), "func_info: records of 4 bytes"),
        (lambda raw: with_word(raw, FIRST, 10), "func_info: records of 10 bytes"),
        (lambda raw: with_word(raw, 12, 8), "func_info: a section header is cut off"),
        (lambda raw: with_word(raw, FIRST + 8, 0), "func_info: 0 records do not fit"),
        (lambda raw: with_word(raw, FIRST + 8, 1 << 30), "func_info: 1073741824 records"),
        (lambda raw: with_word(raw, FIRST + 4, 4096), "func_info: a section name lies outside"),
        (lambda raw: with_word(raw, 12, 4), "func_info: it has no records"),
    ],
)
def test_malformed_data_is_refused_with_its_place(
    change: Callable[[bytes], bytes], message: str
) -> None:
    btf, raw = sample()
    with pytest.raises(InputError, match=message):
        BtfExt.from_bytes(change(raw), btf)


def test_the_byte_order_must_be_that_of_the_btf() -> None:
    btf, _ = sample("little")
    _, raw = sample("big")
    with pytest.raises(InputError, match=r"no \.BTF\.ext header"):
        BtfExt.from_bytes(raw, btf)
