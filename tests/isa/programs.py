"""Random SYSCALL programs, and loaders with small changes, for comparing the model with a kernel.

Everything comes from a generator with a seed, so that a run can be repeated.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    Insn,
    alu64_imm,
    call_helper,
    exit_insn,
    jmp_imm,
    ld_imm64,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    signed32,
    st_mem,
    stx_mem,
)
from bpfseal.bpf.uapi import Helper

CTX_SIZE = 64
"""Bytes of the context of a random program."""

_VALUES = (0, 1, 2, 7, 8, 31, 32, 63, 64, 255, 0x7FFF, 0x8000, 0xFFFF, -1, -2, -128, -(1 << 31))
_SIZES = (op.B, op.H, op.W, op.DW)
_ARITHMETIC = (op.ADD, op.SUB, op.MUL, op.DIV, op.OR, op.AND, op.LSH, op.RSH, op.MOD, op.XOR)
_CONDITIONS = (
    *(op.JEQ, op.JGT, op.JGE, op.JSET, op.JNE, op.JSGT),
    *(op.JSGE, op.JLT, op.JLE, op.JSLT, op.JSLE),
)
_ATOMICS = (op.ADD, op.OR, op.AND, op.XOR)
_CTX = 9
"""The register that keeps the context; the others are numbers."""


def random_program(chance: random.Random) -> list[Insn]:
    """Return a program that computes on numbers, its stack and its context, and ends.

    Most are accepted by a verifier; what r0 to r8 hold at the end is left in the context.
    """
    body: list[Insn] = [mov64_reg(_CTX, 1)]
    for register in range(_CTX):
        body += ld_imm64(register, 0, _number(chance), _number(chance))
    body += [st_mem(op.DW, 10, -8 * slot, chance.choice(_VALUES)) for slot in range(1, 5)]
    for _ in range(chance.randrange(4, 40)):
        body += chance.choice(_PIECES)(chance)
    folded = [Insn(op.ALU64 | op.XOR | op.X, 0, register) for register in range(1, _CTX)]
    kept = [stx_mem(op.DW, _CTX, register, 8 * (register % 8)) for register in range(_CTX)]
    return [*body, *kept, *folded, exit_insn()]


def _number(chance: random.Random) -> int:
    return chance.choice(_VALUES) if chance.random() < 0.5 else chance.getrandbits(32)


def _register(chance: random.Random) -> int:
    return chance.randrange(_CTX)


def _imm(chance: random.Random) -> int:
    return signed32(_number(chance))


def _alu(chance: random.Random) -> list[Insn]:
    kind = chance.choice((op.ALU, op.ALU64))
    operation = chance.choice((*_ARITHMETIC, op.ARSH))
    off = int(operation in (op.DIV, op.MOD) and chance.random() < 0.5)
    if chance.random() < 0.5:
        source = _register(chance)
        return [Insn(kind | operation | op.X, _register(chance), source, off)]
    imm = _imm(chance)
    if operation in (op.LSH, op.RSH, op.ARSH):
        imm = chance.randrange(64 if kind == op.ALU64 else 32)
    if operation in (op.DIV, op.MOD):
        imm = imm or 1
    return [Insn(kind | operation | op.K, _register(chance), 0, off, imm)]


def _unary(chance: random.Random) -> list[Insn]:
    register = _register(chance)
    width = chance.choice((16, 32, 64))
    return [
        chance.choice(
            (
                Insn(op.ALU64 | op.NEG, register),
                Insn(op.ALU | op.NEG, register),
                Insn(op.ALU | op.END | op.K, register, 0, 0, width),
                Insn(op.ALU | op.END | op.X, register, 0, 0, width),
                Insn(op.ALU64 | op.END | op.K, register, 0, 0, width),
            )
        )
    ]


def _move(chance: random.Random) -> list[Insn]:
    kind = chance.choice((op.ALU, op.ALU64))
    off = chance.choice((0, 8, 16, 32 if kind == op.ALU64 else 0))
    return [Insn(kind | op.MOV | op.X, _register(chance), _register(chance), off)]


def _stack(chance: random.Random) -> list[Insn]:
    size = chance.choice(_SIZES)
    step = op.ACCESS_BYTES[size]
    off = -step * chance.randrange(1, 32 // step + 1)
    register = _register(chance)
    load = ldx_mem(size, register, 10, off)
    if size != op.DW and chance.random() < 0.5:
        load = Insn(op.LDX | op.MEMSX | size, register, 10, off)
    return [
        chance.choice((load, stx_mem(size, 10, register, off), st_mem(size, 10, off, _imm(chance))))
    ]


def _context(chance: random.Random) -> list[Insn]:
    size = chance.choice(_SIZES)
    off = op.ACCESS_BYTES[size] * chance.randrange(CTX_SIZE // op.ACCESS_BYTES[size])
    register = _register(chance)
    return [chance.choice((ldx_mem(size, register, _CTX, off), stx_mem(size, _CTX, register, off)))]


def _atomic(chance: random.Random) -> list[Insn]:
    size = chance.choice((op.W, op.DW))
    step = op.ACCESS_BYTES[size]
    off = -step * chance.randrange(1, 32 // step + 1)
    operation = chance.choice(
        (*_ATOMICS, *(each | op.FETCH for each in _ATOMICS), op.XCHG, op.CMPXCHG)
    )
    return [Insn(op.STX | op.ATOMIC | size, 10, _register(chance), off, operation)]


def _branch(chance: random.Random) -> list[Insn]:
    inside = _alu(chance) + _stack(chance)
    kind = chance.choice((op.JMP, op.JMP32)) | chance.choice(_CONDITIONS)
    if chance.random() < 0.5:
        jump = Insn(kind | op.X, _register(chance), _register(chance), len(inside))
    else:
        jump = Insn(kind | op.K, _register(chance), 0, len(inside), _imm(chance))
    return [jump, *inside]


def _loop(chance: random.Random) -> list[Insn]:
    counter = _register(chance)
    inside = [insn for insn in _alu(chance) if insn.dst != counter] or [mov64_imm(counter, 1)]
    if inside[0].dst == counter:
        return inside
    back = -len(inside) - 2
    count = chance.randrange(1, 6)
    return [
        mov64_imm(counter, count),
        *inside,
        alu64_imm(op.SUB, counter, 1),
        jmp_imm(op.JNE, counter, 0, back),
    ]


def _indexed(chance: random.Random) -> list[Insn]:
    """A stack access at an offset that is masked, so that it stays where it may be."""
    index, pointer = chance.sample(range(_CTX), 2)
    return [
        alu64_imm(op.AND, index, chance.choice((3, 7, 15, 31))),
        mov64_reg(pointer, 10),
        Insn(op.ALU64 | op.ADD | op.X, pointer, index),
        chance.choice((st_mem(op.B, pointer, -32, 5), ldx_mem(op.B, index, pointer, -32))),
        mov64_imm(pointer, 3),
    ]


def _clear(chance: random.Random) -> list[Insn]:
    size = chance.randrange(1, 33)
    return [
        mov64_reg(1, 10),
        alu64_imm(op.ADD, 1, -32),
        mov64_imm(2, size),
        mov64_imm(3, 0),
        call_helper(Helper.PROBE_READ_KERNEL),
        *(mov64_imm(register, register) for register in range(1, 6)),
    ]


_PIECES: Sequence[Callable[[random.Random], list[Insn]]] = (
    *(_alu, _alu, _alu, _alu, _unary, _move, _stack, _stack, _context, _atomic),
    *(_branch, _branch, _loop, _indexed, _clear),
)


def mutated(chance: random.Random, insns: Sequence[Insn]) -> list[Insn]:
    """Return a program with one to three small changes.

    Changes leave the two slots of a ld_imm64 together, as a compiler's mistake would.
    """
    changed = list(insns)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        starts = _starts(changed)
        near = [start for start in starts if start < 160]
        at = chance.choice(near if chance.random() < 0.5 else starts)
        chance.choice(_CHANGES)(chance, changed, at)
    return changed


def _starts(insns: Sequence[Insn]) -> list[int]:
    starts = []
    index = 0
    while index < len(insns):
        starts.append(index)
        index += 2 if insns[index].is_ld_imm64 else 1
    return starts


def _piece(insns: Sequence[Insn], at: int) -> list[Insn]:
    return list(insns[at : at + (2 if insns[at].is_ld_imm64 else 1)])


def _change_code(chance: random.Random, insns: list[Insn], at: int) -> None:
    if not insns[at].is_ld_imm64:
        insns[at] = insns[at]._replace(code=insns[at].code ^ 1 << chance.randrange(3, 8))


def _change_dst(chance: random.Random, insns: list[Insn], at: int) -> None:
    insns[at] = insns[at]._replace(dst=chance.randrange(11))


def _change_src(chance: random.Random, insns: list[Insn], at: int) -> None:
    insns[at] = insns[at]._replace(src=chance.randrange(11))


def _change_off(chance: random.Random, insns: list[Insn], at: int) -> None:
    step = chance.choice((-16, -8, -4, -2, -1, 1, 2, 4, 8, 16, -512, 512))
    if insns[at].insn_class not in (op.ALU, op.ALU64, op.LD):
        off = max(-0x8000, min(0x7FFF, insns[at].off + step))
        insns[at] = insns[at]._replace(off=off)


def _change_imm(chance: random.Random, insns: list[Insn], at: int) -> None:
    old = insns[at].imm
    new = chance.choice((0, 1, -1, 4, 8, 64, 168, 512, old + 1, old - 1, old ^ 1 << 30))
    if not insns[at].code & op.X or insns[at].insn_class in (op.LD, op.ST):
        insns[at] = insns[at]._replace(imm=signed32(new))


def _delete(_chance: random.Random, insns: list[Insn], at: int) -> None:
    """Make an insn one that does nothing, so that jumps still lead where they led."""
    for slot in range(at, at + len(_piece(insns, at))):
        insns[slot] = Insn(op.JMP | op.JA)


def _remove(_chance: random.Random, insns: list[Insn], at: int) -> None:
    if len(insns) > len(_piece(insns, at)):
        del insns[at : at + len(_piece(insns, at))]


def _insert(chance: random.Random, insns: list[Insn], at: int) -> None:
    insns[at:at] = _piece(insns, chance.choice(_starts(insns)))


def _overwrite(chance: random.Random, insns: list[Insn], at: int) -> None:
    piece = _piece(insns, chance.choice(_starts(insns)))
    if len(piece) == len(_piece(insns, at)):
        insns[at : at + len(piece)] = piece


def _compute(chance: random.Random, insns: list[Insn], at: int) -> None:
    code = chance.choice((0x07, 0x0F, 0x1F, 0x57, 0x67, 0xB7, 0xBF, 0x61, 0x79, 0x63, 0x7B, 0x85))
    imm = chance.choice((0, 1, 8, -8, 168)) if code in (0x07, 0x57, 0x67, 0xB7, 0x85) else 0
    off = chance.choice((0, 0, -8, 8, 1, -4)) if code in (0x61, 0x79, 0x63, 0x7B) else 0
    source = chance.randrange(11) if code & op.X or code in (0x61, 0x79, 0x63) else 0
    insns.insert(at, Insn(code, chance.randrange(10) if code != 0x85 else 0, source, off, imm))


_CHANGES: Sequence[Callable[[random.Random, list[Insn], int], None]] = (
    *(_change_code, _change_dst, _change_src, _change_off, _change_imm),
    *(_delete, _remove, _insert, _overwrite, _compute),
)
