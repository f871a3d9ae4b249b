"""Our own vectors: instructions and their edges, each with the section of RFC 9669 that it is from.

They are data: `test_vectors` runs them in the model and, as root, in the running kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    Insn,
    alu64_imm,
    jmp_imm,
    jump,
    ld_imm64,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    st_mem,
    stx_mem,
)

A, A64, J, J32 = op.ALU, op.ALU64, op.JMP, op.JMP32
K, X = op.K, op.X
B, H, W, DW = op.B, op.H, op.W, op.DW

ONES: Final = 0xFFFFFFFF_FFFFFFFF
MIN64: Final = 0x80000000_00000000
MIN32: Final = 0x80000000
HIGH: Final = 0xAAAAAAAA_00000000
"""High bits that a 32-bit operation must ignore and clear."""


def alu_k(cls: int, operation: int, imm: int, off: int = 0) -> Insn:
    """``r0 operation= imm``."""
    return Insn(cls | operation | K, 0, 0, off, imm)


def alu_x(cls: int, operation: int, off: int = 0) -> Insn:
    """``r0 operation= r2``."""
    return Insn(cls | operation | X, 0, 2, off, 0)


# fmt: off
ARITHMETIC: Final[Sequence[tuple[str, Insn, int, int, int]]] = [
    ("4.1 add wraps at 64 bits", alu_x(A64, op.ADD), ONES, 2, 1),
    ("4.1 add32 wraps and zero-extends", alu_x(A, op.ADD), HIGH | 0xFFFFFFFF, 2, 1),
    ("4.1 add imm is sign-extended", alu_k(A64, op.ADD, -1), 0, 0, ONES),
    ("4.1 add32 imm zero-extends the result", alu_k(A, op.ADD, -1), 0, 0, 0xFFFFFFFF),
    ("4.1 sub wraps below zero", alu_x(A64, op.SUB), 1, 2, ONES),
    ("4.1 sub32 zero-extends", alu_x(A, op.SUB), 1, 2, 0xFFFFFFFF),
    ("4.1 mul keeps the low 64 bits", alu_x(A64, op.MUL), ONES, ONES, 1),
    ("4.1 mul32 keeps the low 32 bits", alu_x(A, op.MUL), HIGH | 0x10001, 0x10000, 0x10000),
    ("4.1 div is unsigned", alu_x(A64, op.DIV), ONES, 2, 0x7FFFFFFF_FFFFFFFF),
    ("4.1 div imm is sign-extended, then unsigned", alu_k(A64, op.DIV, -1), ONES, 0, 1),
    ("4.1 div32 ignores the high bits", alu_x(A, op.DIV), HIGH | 7, HIGH | 2, 3),
    ("4.1 div by zero gives 0", alu_x(A64, op.DIV), 7, 0, 0),
    ("4.1 div32 by zero gives 0", alu_x(A, op.DIV), HIGH | 7, HIGH, 0),
    ("4.1 div by zero imm gives 0", alu_k(A64, op.DIV, 0), 7, 0, 0),
    ("4.1 sdiv truncates towards zero", alu_x(A64, op.DIV, 1), -7 & ONES, 2, -3 & ONES),
    ("4.1 sdiv by a negative", alu_k(A64, op.DIV, -2, 1), 7, 0, -3 & ONES),
    ("4.1 sdiv of both negative", alu_k(A64, op.DIV, -2, 1), -7 & ONES, 0, 3),
    ("4.1 sdiv of the least by -1 stays", alu_k(A64, op.DIV, -1, 1), MIN64, 0, MIN64),
    ("4.1 sdiv by zero gives 0", alu_x(A64, op.DIV, 1), -7 & ONES, 0, 0),
    ("4.1 sdiv32", alu_x(A, op.DIV, 1), HIGH | 0xFFFFFFF9, 2, 0xFFFFFFFD),
    ("4.1 sdiv32 of the least by -1 stays", alu_k(A, op.DIV, -1, 1), MIN32, 0, MIN32),
    ("4.1 sdiv32 by zero gives 0", alu_x(A, op.DIV, 1), HIGH | 7, HIGH, 0),
    ("4.1 mod is unsigned", alu_k(A64, op.MOD, 10), ONES, 0, 5),
    ("4.1 mod by zero leaves dst", alu_x(A64, op.MOD), ONES, 0, ONES),
    ("4.1 mod32 by zero clears the high bits", alu_x(A, op.MOD), HIGH | 7, HIGH, 7),
    ("4.1 smod has the sign of dst", alu_x(A64, op.MOD, 1), -13 & ONES, 3, -1 & ONES),
    ("4.1 smod by a negative", alu_k(A64, op.MOD, -3, 1), 13, 0, 1),
    ("4.1 smod of the least by -1 is 0", alu_k(A64, op.MOD, -1, 1), MIN64, 0, 0),
    ("4.1 smod by zero leaves dst", alu_x(A64, op.MOD, 1), -13 & ONES, 0, -13 & ONES),
    ("4.1 smod32", alu_x(A, op.MOD, 1), HIGH | 0xFFFFFFF3, 3, 0xFFFFFFFF),
    ("4.1 smod32 of the least by -1 is 0", alu_k(A, op.MOD, -1, 1), MIN32, 0, 0),
    ("4.1 smod32 by zero clears the high bits", alu_x(A, op.MOD, 1), HIGH | 7, 0, 7),
    ("4.1 or imm is sign-extended", alu_k(A64, op.OR, -1 << 31), 1, 0, 0xFFFFFFFF_80000001),
    ("4.1 or32", alu_x(A, op.OR), HIGH | 0xF0, HIGH | 0x0F, 0xFF),
    ("4.1 and imm is sign-extended", alu_k(A64, op.AND, -16), ONES, 0, ~15 & ONES),
    ("4.1 and32 clears the high bits", alu_k(A, op.AND, -16), ONES, 0, 0xFFFFFFF0),
    ("4.1 xor", alu_x(A64, op.XOR), 0xFF00FF00_FF00FF00, ONES, 0x00FF00FF_00FF00FF),
    ("4.1 xor32", alu_k(A, op.XOR, -1), HIGH, 0, 0xFFFFFFFF),
    ("4.1 lsh", alu_k(A64, op.LSH, 63), 3, 0, MIN64),
    ("4.1 lsh masks the count with 63", alu_x(A64, op.LSH), 1, 65, 2),
    ("4.1 lsh32 masks the count with 31", alu_x(A, op.LSH), 1, 33, 2),
    ("4.1 lsh32 drops what leaves 32 bits", alu_k(A, op.LSH, 31), 3, 0, MIN32),
    ("4.1 rsh", alu_k(A64, op.RSH, 63), MIN64, 0, 1),
    ("4.1 rsh masks the count with 63", alu_x(A64, op.RSH), 4, 65, 2),
    ("4.1 rsh32 shifts nothing in from above", alu_k(A, op.RSH, 4), HIGH | 0xF0, 0, 0xF),
    ("4.1 rsh32 masks the count with 31", alu_x(A, op.RSH), 4, 33, 2),
    ("4.1 arsh copies the sign", alu_k(A64, op.ARSH, 63), MIN64, 0, ONES),
    ("4.1 arsh masks the count with 63", alu_x(A64, op.ARSH), -4 & ONES, 65, -2 & ONES),
    ("4.1 arsh32 copies bit 31", alu_k(A, op.ARSH, 4), MIN32, 0, 0xF8000000),
    ("4.1 arsh32 masks the count with 31", alu_x(A, op.ARSH), HIGH | 4, 33, 2),
    ("4.1 neg", alu_k(A64, op.NEG, 0), 1, 0, ONES),
    ("4.1 neg of the least stays", alu_k(A64, op.NEG, 0), MIN64, 0, MIN64),
    ("4.1 neg32 zero-extends", alu_k(A, op.NEG, 0), HIGH | 1, 0, 0xFFFFFFFF),
    ("4.1 mov", alu_x(A64, op.MOV), 0, ONES, ONES),
    ("4.1 mov imm is sign-extended", alu_k(A64, op.MOV, -2), 0, 0, -2 & ONES),
    ("4.1 mov32 clears the high bits", alu_x(A, op.MOV), ONES, HIGH | 5, 5),
    ("4.1 mov32 imm zero-extends", alu_k(A, op.MOV, -2), ONES, 0, 0xFFFFFFFE),
    ("4.1 movsx 8", alu_x(A64, op.MOV, 8), 0, 0x180, -128 & ONES),
    ("4.1 movsx 16", alu_x(A64, op.MOV, 16), 0, 0x18000, -32768 & ONES),
    ("4.1 movsx 32", alu_x(A64, op.MOV, 32), 0, MIN32, 0xFFFFFFFF_80000000),
    ("4.1 movsx of a positive", alu_x(A64, op.MOV, 8), 0, 0xFF7F, 0x7F),
    ("4.1 movsx32 8 zero-extends above 32", alu_x(A, op.MOV, 8), ONES, 0x80, 0xFFFFFF80),
    ("4.1 movsx32 16", alu_x(A, op.MOV, 16), ONES, 0x8000, 0xFFFF8000),
    ("4.2 le16 cuts", Insn(0xD4, 0, 0, 0, 16), 0x1122334455667788, 0, 0x7788),
    ("4.2 le32 cuts", Insn(0xD4, 0, 0, 0, 32), 0x1122334455667788, 0, 0x55667788),
    ("4.2 le64 changes nothing", Insn(0xD4, 0, 0, 0, 64), ONES - 1, 0, ONES - 1),
    ("4.2 be16", Insn(0xDC, 0, 0, 0, 16), 0x1122334455667788, 0, 0x8877),
    ("4.2 be32", Insn(0xDC, 0, 0, 0, 32), 0x1122334455667788, 0, 0x88776655),
    ("4.2 be64", Insn(0xDC, 0, 0, 0, 64), 0x1122334455667788, 0, 0x8877665544332211),
    ("4.2 bswap16", Insn(0xD7, 0, 0, 0, 16), 0x1122334455667788, 0, 0x8877),
    ("4.2 bswap32", Insn(0xD7, 0, 0, 0, 32), 0x1122334455667788, 0, 0x88776655),
    ("4.2 bswap64", Insn(0xD7, 0, 0, 0, 64), 0x1122334455667788, 0, 0x8877665544332211),
]
# fmt: on
"""The rule; an insn on r0 and r2; both before it; r0 after it."""


class Vector(NamedTuple):
    """A program without its exit, and what it does.

    Attributes:
        rule: the section of RFC 9669, or ``linux``, and the rule.
        insns: the program; r1 points to the context, and r0 must be set at the end.
        r0: what r0 is at the end.
        ctx: 16 bytes of context before.
        after: the context at the end; ``None`` for no change.
    """

    rule: str
    insns: Sequence[Insn]
    r0: int
    ctx: bytes = bytes(range(0x80, 0x90))
    after: bytes | None = None


def _sx(size: int, off: int) -> Insn:
    return Insn(op.LDX | op.MEMSX | size, 0, 1, off)


def _atomic(size: int, operation: int, off: int = -8) -> Insn:
    """An atomic operation on the stack with r2."""
    return Insn(op.STX | op.ATOMIC | size, 10, 2, off, operation)


def _on_stack(value: int, source: int, insn: Insn, *, result: str) -> Sequence[Insn]:
    """Do `insn` with a value on the stack and r2; r0 becomes the memory or the register."""
    last = ldx_mem(DW, 0, 10, -8) if result == "memory" else mov64_reg(0, 2)
    return [
        *ld_imm64(3, 0, value, value >> 32),
        stx_mem(DW, 10, 3, -8),
        *ld_imm64(2, 0, source, source >> 32),
        *ld_imm64(0, 0, 7),
        insn,
        last,
    ]


def _call(displacement: int) -> Insn:
    return Insn(J | op.CALL, 0, op.PSEUDO_CALL, 0, displacement)


def _count_down(back: Insn) -> Sequence[Insn]:
    return [
        mov64_imm(0, 0),
        mov64_imm(2, 5),
        alu64_imm(op.ADD, 0, 3),
        alu64_imm(op.SUB, 2, 1),
        back,
    ]


_BYTES = bytes(range(0x80, 0x90))
_EXIT = Insn(J | op.EXIT)

PROGRAMS: Final[Sequence[Vector]] = [
    Vector("5.1 ldxb zero-extends", [ldx_mem(B, 0, 1, 1)], 0x81),
    Vector("5.1 ldxh is little-endian", [ldx_mem(H, 0, 1, 2)], 0x8382),
    Vector("5.1 ldxw", [ldx_mem(W, 0, 1, 4)], 0x87868584),
    Vector("5.1 ldxdw", [ldx_mem(DW, 0, 1, 8)], 0x8F8E8D8C8B8A8988),
    Vector("5.2 ldxsb", [_sx(B, 0)], -0x80 & ONES),
    Vector("5.2 ldxsh", [_sx(H, 0)], -0x7E80 & ONES),
    Vector("5.2 ldxsw", [_sx(W, 0)], 0xFFFFFFFF_83828180),
    Vector("5.2 of a positive number", [_sx(B, 0)], 0x7F, b"\x7f" + bytes(15)),
    Vector(
        "5.1 stxb writes one byte",
        [mov64_imm(0, -1), stx_mem(B, 1, 0, 3)],
        ONES,
        bytes(16),
        bytes(3) + b"\xff" + bytes(12),
    ),
    Vector(
        "5.1 stxh writes two",
        [mov64_imm(0, -2), stx_mem(H, 1, 0, 2)],
        ONES - 1,
        bytes(16),
        b"\0\0\xfe\xff" + bytes(12),
    ),
    Vector(
        "5.1 stxw writes four",
        [mov64_imm(0, -2), stx_mem(W, 1, 0, 4)],
        ONES - 1,
        bytes(16),
        bytes(4) + b"\xfe\xff\xff\xff" + bytes(8),
    ),
    Vector(
        "5.1 stdw sign-extends its imm",
        [st_mem(DW, 1, 8, -2), mov64_imm(0, 0)],
        0,
        bytes(16),
        bytes(8) + b"\xfe" + b"\xff" * 7,
    ),
    Vector(
        "5.1 stb cuts its imm",
        [st_mem(B, 1, 0, 0x1FF), mov64_imm(0, 0)],
        0,
        bytes(16),
        b"\xff" + bytes(15),
    ),
    Vector(
        "5.4 ld_imm64 joins both immediates",
        ld_imm64(0, 0, 0x80000001, 0xFFFFFFFE),
        0xFFFFFFFE_80000001,
    ),
    *(
        Vector(
            f"5.3 atomic {name}{bits} leaves {'the old value' if what else 'the result'}"
            f"{' with FETCH' if fetch else ''}",
            _on_stack(0x1_0000000C, 0x2_00000006, _atomic(size, operation | fetch), result=result),
            old if fetch and what else 0x2_00000006 if what else stored,
        )
        for name, operation, stored64, stored32 in (
            ("add", op.ADD, 0x3_00000012, 0x1_00000012),
            ("or", op.OR, 0x3_0000000E, 0x1_0000000E),
            ("and", op.AND, 0x4, 0x1_00000004),
            ("xor", op.XOR, 0x3_0000000A, 0x1_0000000A),
        )
        for size, bits, stored, old in (
            (DW, 64, stored64, 0x1_0000000C),
            (W, 32, stored32, 0xC),
        )
        for fetch in (0, op.FETCH)
        for what, result in ((0, "memory"), (1, "register"))
    ),
    Vector("5.3 xchg swaps", _on_stack(5, 9, _atomic(DW, op.XCHG), result="memory"), 9),
    Vector("5.3 xchg fetches", _on_stack(5, 9, _atomic(DW, op.XCHG), result="register"), 5),
    Vector(
        "5.3 xchg32 clears the high bits of the register",
        _on_stack(HIGH | 5, HIGH | 9, _atomic(W, op.XCHG), result="register"),
        5,
    ),
    Vector("5.3 cmpxchg stores", _on_stack(7, 9, _atomic(DW, op.CMPXCHG), result="memory"), 9),
    Vector("5.3 cmpxchg keeps", _on_stack(8, 9, _atomic(DW, op.CMPXCHG), result="memory"), 8),
    Vector(
        "5.3 cmpxchg32 compares the low bits",
        _on_stack(HIGH | 7, 9, _atomic(W, op.CMPXCHG), result="memory"),
        HIGH | 9,
    ),
    Vector("5.3 cmpxchg loads r0", _on_stack(8, 9, _atomic(DW, op.CMPXCHG), result="x")[:-1], 8),
    Vector(
        "linux load-acquire",
        [
            *_on_stack(0x1_00000005, 0, mov64_imm(2, 0), result="x")[:-1],
            Insn(op.STX | op.ATOMIC | W, 0, 10, -8, op.LOAD_ACQ),
        ],
        5,
    ),
    Vector(
        "linux store-release",
        _on_stack(ONES, 5, _atomic(H, op.STORE_REL), result="memory"),
        0xFFFFFFFF_FFFF0005,
    ),
    Vector(
        "4.3 goto skips", [mov64_imm(0, 1), jmp_imm(op.JEQ, 0, 9, 1), jump(1), mov64_imm(0, 2)], 1
    ),
    Vector(
        "4.3 gotol skips by imm",
        [mov64_imm(0, 1), jmp_imm(op.JEQ, 0, 9, 1), Insn(J32 | op.JA, 0, 0, 0, 1), mov64_imm(0, 2)],
        1,
    ),
    Vector("4.3 a loop jumps backward", _count_down(jmp_imm(op.JNE, 2, 0, -3)), 15),
    Vector(
        "4.3.2 a function returns r0",
        [mov64_imm(1, 40), _call(1), _EXIT, mov64_reg(0, 1), alu64_imm(op.ADD, 0, 2)],
        42,
    ),
    Vector(
        "4.3.2 r6 is the caller's again",
        [mov64_imm(6, 5), _call(2), mov64_reg(0, 6), _EXIT, mov64_imm(6, 9), mov64_imm(0, 0)],
        5,
    ),
    Vector(
        "4.3.2 each function has its stack",
        [
            st_mem(DW, 10, -8, 1),
            _call(2),
            ldx_mem(DW, 0, 10, -8),
            _EXIT,
            st_mem(DW, 10, -8, 2),
            mov64_imm(0, 0),
        ],
        1,
    ),
    Vector(
        "linux may_goto falls through at first",
        [mov64_imm(0, 1), Insn(J | op.JCOND, 0, 0, 1), mov64_imm(0, 2)],
        2,
    ),
]
