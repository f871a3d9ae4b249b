"""Insns as the kernel's log writes them (kernel/bpf/disasm.c ``print_bpf_insn``).

Example:
    >>> insn_line((mov64_reg(6, 1),), 0)
    '(bf) r6 = r1'
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn
from bpfseal.kernel.model.analysis.helper_names import helper_name
from bpfseal.kernel.model.analysis.pointer_math import OPERATORS

_JUMPS: Final = {
    op.JEQ: "==",
    op.JGT: ">",
    op.JLT: "<",
    op.JGE: ">=",
    op.JLE: "<=",
    op.JSET: "&",
    op.JNE: "!=",
    op.JSGT: "s>",
    op.JSLT: "s<",
    op.JSGE: "s>=",
    op.JSLE: "s<=",
}
_TYPES: Final = {op.W: "u32", op.H: "u16", op.B: "u8", op.DW: "u64"}
_SIGNED_TYPES: Final = {op.W: "s32", op.H: "s16", op.B: "s8"}
_ATOMIC_NAMES: Final = {op.ADD: "add", op.AND: "and", op.OR: "or", op.XOR: "xor"}
_SIZE: Final = 0x18
_OPERATION: Final = 0xF0
_MODE: Final = 0xE0


def insn_line(insns: Sequence[Insn], index: int) -> str:
    """Return one insn with its opcode in front."""
    insn = insns[index]
    return f"({insn.code:02x}) {_text(insns, index, insn)}"


def _text(insns: Sequence[Insn], index: int, insn: Insn) -> str:
    match insn.insn_class:
        case op.ALU | op.ALU64:
            return _alu(insn)
        case op.LDX:
            types = _SIGNED_TYPES if insn.code & _MODE == op.MEMSX else _TYPES
            kind = types.get(insn.code & _SIZE, "?")
            return f"r{insn.dst} = *({kind} *)(r{insn.src} {insn.off:+d})"
        case op.ST:
            kind = _TYPES[insn.code & _SIZE]
            return f"*({kind} *)(r{insn.dst} {insn.off:+d}) = {insn.imm}"
        case op.STX:
            return _stx(insn)
        case op.LD:
            return _ld(insns, index, insn)
        case _:
            return _jump(insn)


def _alu(insn: Insn) -> str:
    operation = insn.code & _OPERATION
    letter = "r" if insn.insn_class == op.ALU64 else "w"
    target, source = f"{letter}{insn.dst}", f"{letter}{insn.src}"
    if operation == op.END:
        if insn.insn_class == op.ALU64:
            return f"r{insn.dst} = bswap{insn.imm} r{insn.dst}"
        order = "be" if insn.code & op.X else "le"
        return f"r{insn.dst} = {order}{insn.imm} r{insn.dst}"
    if operation == op.NEG:
        return f"{target} = -{target}"
    sign = "s" if operation in (op.DIV, op.MOD) and insn.off == 1 else ""
    operator = f"{sign}{OPERATORS.get(operation, '?')}"
    if not insn.code & op.X:
        return f"{target} {operator} {insn.imm}"
    cast = f"(s{insn.off})" if operation == op.MOV and insn.off in (8, 16, 32) else ""
    return f"{target} {operator} {cast}{source}"


def _stx(insn: Insn) -> str:
    kind = _TYPES[insn.code & _SIZE]
    place = f"({kind} *)(r{insn.dst} {insn.off:+d})"
    if insn.code & _MODE != op.ATOMIC:
        return f"*{place} = r{insn.src}"
    width = "64" if insn.code & _SIZE == op.DW else ""
    if insn.imm == op.LOAD_ACQ:
        return f"r{insn.dst} = load_acquire(({kind} *)(r{insn.src} {insn.off:+d}))"
    if insn.imm == op.STORE_REL:
        return f"store_release({place}, r{insn.src})"
    if insn.imm == op.CMPXCHG:
        return f"r0 = atomic{width}_cmpxchg({place}, r0, r{insn.src})"
    if insn.imm == op.XCHG:
        return f"r{insn.src} = atomic{width}_xchg({place}, r{insn.src})"
    operation = insn.imm & _OPERATION
    if insn.imm & op.FETCH:
        name = _ATOMIC_NAMES.get(operation, "?")
        return f"r{insn.src} = atomic{width}_fetch_{name}({place}, r{insn.src})"
    return f"lock *{place} {OPERATORS.get(operation, '?')} r{insn.src}"


def _ld(insns: Sequence[Insn], index: int, insn: Insn) -> str:
    mode = insn.code & _MODE
    if mode == op.IMM:
        high = insns[index + 1].imm if index + 1 < len(insns) else 0
        return f"r{insn.dst} = {(high & 0xFFFFFFFF) << 32 | insn.imm & 0xFFFFFFFF:#x}"
    kind = _TYPES[insn.code & _SIZE]
    place = f"r{insn.src} + {insn.imm}" if mode == op.IND else f"{insn.imm}"
    return f"r0 = *({kind} *)skb[{place}]"


def _jump(insn: Insn) -> str:
    operation = insn.code & _OPERATION
    if operation == op.CALL:
        if insn.src == op.PSEUDO_CALL:
            return f"call pc{insn.imm:+d}"
        if insn.src == op.PSEUDO_KFUNC_CALL:
            return f"call kernel-function#{insn.imm}"
        return f"call {helper_name(insn.imm)}#{insn.imm}"
    if operation == op.EXIT:
        return "exit"
    if operation == op.JA:
        is_long = insn.insn_class == op.JMP32
        return f"gotol pc{insn.imm:+d}" if is_long else f"goto pc{insn.off:+d}"
    if operation == op.JCOND:
        return f"may_goto pc{insn.off:+d}"
    letter = "r" if insn.insn_class == op.JMP else "w"
    other = f"{letter}{insn.src}" if insn.code & op.X else f"{insn.imm & 0xFFFFFFFF:#x}"
    operator = _JUMPS.get(operation, "?")
    return f"if {letter}{insn.dst} {operator} {other} goto pc{insn.off:+d}"
