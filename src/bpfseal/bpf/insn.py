"""BPF instructions as values: encode and decode (RFC 9669, section 3).

Example:
    >>> exit_insn().encode().hex()
    '9500000000000000'
    >>> decode_insns(bytes.fromhex("b700000001000000"))[0].imm
    1
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Literal, NamedTuple

from bpfseal.bpf import opcodes as op
from bpfseal.errors import InputError

INSN_SIZE = 8
"""Bytes of one instruction slot."""

ByteOrder = Literal["little", "big"]

_LAYOUT = {"little": struct.Struct("<BBhi"), "big": struct.Struct(">BBhi")}


class Insn(NamedTuple):
    """One instruction slot.

    Attributes:
        code: opcode, 0 to 255.
        dst: destination register, 0 to 15.
        src: source register or pseudo source, 0 to 15.
        off: signed 16-bit offset.
        imm: signed 32-bit immediate.
    """

    code: int
    dst: int = 0
    src: int = 0
    off: int = 0
    imm: int = 0

    def encode(self, byteorder: ByteOrder = "little") -> bytes:
        """Return the 8 bytes of this slot.

        In big-endian byte order the two register fields change places too (RFC 9669, section 3).
        """
        high, low = (self.src, self.dst) if byteorder == "little" else (self.dst, self.src)
        return _LAYOUT[byteorder].pack(self.code, high << 4 | low, self.off, self.imm)

    @property
    def insn_class(self) -> int:
        """The instruction class, the low three bits of the opcode."""
        return self.code & 0x07

    @property
    def is_ld_imm64(self) -> bool:
        """Whether this is the first slot of a two-slot ld_imm64."""
        return self.code == op.LD_IMM64


def encode_insns(insns: Sequence[Insn], byteorder: ByteOrder = "little") -> bytes:
    """Return the bytes of a program (in bulk: each slot as one 64-bit word)."""
    if byteorder == "little":
        words = [
            code | dst << 8 | src << 12 | (off & 0xFFFF) << 16 | (imm & 0xFFFFFFFF) << 32
            for code, dst, src, off, imm in insns
        ]
        return struct.pack(f"<{len(words)}Q", *words)
    return b"".join(insn.encode(byteorder) for insn in insns)


def decode_insns(data: bytes, byteorder: ByteOrder = "little") -> list[Insn]:
    """Return the slots of a program.

    Raises:
        InputError: if the length is no multiple of 8 bytes.
    """
    if len(data) % INSN_SIZE:
        raise InputError(f"{len(data)} bytes of instructions are no multiple of {INSN_SIZE}")
    slots = _LAYOUT[byteorder].iter_unpack(data)
    if byteorder == "little":
        return [Insn(code, regs & 15, regs >> 4, off, imm) for code, regs, off, imm in slots]
    return [Insn(code, regs >> 4, regs & 15, off, imm) for code, regs, off, imm in slots]


def signed32(value: int) -> int:
    """Return the low 32 bits of `value` as a signed number, as `Insn.imm` holds them."""
    value &= 0xFFFFFFFF
    return value - 0x100000000 if value & 0x80000000 else value


def mov64_reg(dst: int, src: int) -> Insn:
    """``dst = src``."""
    return Insn(op.ALU64 | op.MOV | op.X, dst, src)


def mov64_imm(dst: int, imm: int) -> Insn:
    """``dst = imm``, sign-extended."""
    return Insn(op.ALU64 | op.MOV | op.K, dst, 0, 0, imm)


def alu64_imm(operation: int, dst: int, imm: int) -> Insn:
    """``dst operation= imm`` on 64 bits."""
    return Insn(op.ALU64 | operation | op.K, dst, 0, 0, imm)


def alu32_imm(operation: int, dst: int, imm: int) -> Insn:
    """``dst operation= imm`` on 32 bits, zero-extended."""
    return Insn(op.ALU | operation | op.K, dst, 0, 0, imm)


def ldx_mem(size: int, dst: int, src: int, off: int) -> Insn:
    """``dst = *(size *)(src + off)``."""
    return Insn(op.LDX | op.MEM | size, dst, src, off)


def stx_mem(size: int, dst: int, src: int, off: int) -> Insn:
    """``*(size *)(dst + off) = src``."""
    return Insn(op.STX | op.MEM | size, dst, src, off)


def st_mem(size: int, dst: int, off: int, imm: int) -> Insn:
    """``*(size *)(dst + off) = imm``."""
    return Insn(op.ST | op.MEM | size, dst, 0, off, imm)


def ld_imm64(dst: int, src: int, first: int, second: int = 0) -> tuple[Insn, Insn]:
    """Both slots of ``dst = imm64``: `first` and `second` are the two 32-bit immediates."""
    return Insn(op.LD_IMM64, dst, src, 0, signed32(first)), Insn(0, 0, 0, 0, signed32(second))


def jmp_imm(operation: int, dst: int, imm: int, off: int) -> Insn:
    """``if dst operation imm goto +off``."""
    return Insn(op.JMP | operation | op.K, dst, 0, off, imm)


def jmp_reg(operation: int, dst: int, src: int, off: int) -> Insn:
    """``if dst operation src goto +off``."""
    return Insn(op.JMP | operation | op.X, dst, src, off)


def jump(off: int) -> Insn:
    """``goto +off``."""
    return Insn(op.JMP | op.JA, 0, 0, off)


def call_helper(helper: int) -> Insn:
    """A call of the helper with this id."""
    return Insn(op.JMP | op.CALL, 0, 0, 0, helper)


def exit_insn() -> Insn:
    """Return from the program with r0."""
    return Insn(op.JMP | op.EXIT)
