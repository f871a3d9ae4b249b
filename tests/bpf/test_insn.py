"""Instructions: RFC 9669, section 3."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfseal.bpf import insn as make
from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import ByteOrder, Insn, decode_insns, encode_insns, signed32
from bpfseal.errors import InputError

INSNS = st.builds(
    Insn,
    st.integers(0, 255),
    st.integers(0, 15),
    st.integers(0, 15),
    st.integers(-(1 << 15), (1 << 15) - 1),
    st.integers(-(1 << 31), (1 << 31) - 1),
)
BYTE_ORDERS = st.sampled_from(("little", "big"))


@given(st.lists(INSNS, max_size=20), BYTE_ORDERS)
def test_what_is_encoded_decodes_to_the_same_insns(insns: list[Insn], order: ByteOrder) -> None:
    assert decode_insns(encode_insns(insns, order), order) == insns


@given(st.binary(max_size=160), BYTE_ORDERS)
def test_whole_slots_decode_and_encode_to_the_same_bytes(data: bytes, order: ByteOrder) -> None:
    data = data[: len(data) // 8 * 8]
    assert encode_insns(decode_insns(data, order), order) == data


@given(INSNS)
def test_the_other_byte_order_swaps_each_field_and_the_registers(insn: Insn) -> None:
    code, registers, off, imm = struct.unpack("<BBhi", insn.encode("little"))
    swapped = registers >> 4 | (registers & 15) << 4
    assert insn.encode("big") == struct.pack(">BBhi", code, swapped, off, imm)


@pytest.mark.parametrize("size", [1, 7, 9, 23])
def test_a_cut_slot_is_refused(size: int) -> None:
    with pytest.raises(InputError, match=f"{size} bytes"):
        decode_insns(bytes(size))


@given(st.integers(-(1 << 63), (1 << 64) - 1))
def test_signed32_keeps_the_low_32_bits(value: int) -> None:
    assert signed32(value) & 0xFFFFFFFF == value & 0xFFFFFFFF
    assert -(1 << 31) <= signed32(value) < 1 << 31


@pytest.mark.parametrize(
    ("insn", "encoded"),
    [
        (make.mov64_reg(6, 1), "bf16000000000000"),
        (make.mov64_imm(0, -1), "b7000000ffffffff"),
        (make.alu64_imm(op.ADD, 1, -168), "0701000058ffffff"),
        (make.alu32_imm(op.AND, 9, 15), "540900000f000000"),
        (make.ldx_mem(op.W, 1, 10, -4), "61a1fcff00000000"),
        (make.stx_mem(op.DW, 2, 3, 24), "7b32180000000000"),
        (make.st_mem(op.H, 8, 2, 64), "6a08020040000000"),
        (make.jmp_imm(op.JSLT, 7, 0, -9), "c507f7ff00000000"),
        (make.jmp_reg(op.JEQ, 1, 2, 3), "1d21030000000000"),
        (make.jump(72), "0500480000000000"),
        (make.call_helper(166), "85000000a6000000"),
        (make.exit_insn(), "9500000000000000"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_constructor_makes_the_bytes_of_the_rfc(insn: Insn, encoded: str) -> None:
    assert insn.encode().hex() == encoded


def test_ld_imm64_takes_two_slots_with_half_of_the_number_each() -> None:
    first, second = make.ld_imm64(1, op.PSEUDO_MAP_IDX_VALUE, 0x89ABCDEF, 0x01234567)
    assert first.is_ld_imm64
    assert not second.is_ld_imm64
    assert encode_insns((first, second)).hex() == "18610000efcdab890000000067452301"


@pytest.mark.parametrize("code", range(8))
def test_the_class_is_the_low_three_bits(code: int) -> None:
    assert Insn(0xF8 | code).insn_class == code
