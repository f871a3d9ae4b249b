"""Opcode fields of the BPF instruction set (RFC 9669, sections 3 to 5).

The 8-bit opcode of an insn is a class (low 3 bits) and, by class, either a size and a mode or an
operation and a source bit. Names are those of the field (``include/uapi/linux/bpf.h``) without the
``BPF_`` prefix.
"""

from __future__ import annotations

from typing import Final

# Instruction classes: RFC 9669, section 3.1.
LD: Final = 0x00
LDX: Final = 0x01
ST: Final = 0x02
STX: Final = 0x03
ALU: Final = 0x04
JMP: Final = 0x05
JMP32: Final = 0x06
ALU64: Final = 0x07

# Sizes of loads and stores: RFC 9669, section 5.
W: Final = 0x00
H: Final = 0x08
B: Final = 0x10
DW: Final = 0x18

# Modes of loads and stores: RFC 9669, section 5.
IMM: Final = 0x00
ABS: Final = 0x20
IND: Final = 0x40
MEM: Final = 0x60
MEMSX: Final = 0x80
ATOMIC: Final = 0xC0

# Source of an operand: RFC 9669, section 4.
K: Final = 0x00
X: Final = 0x08

# Arithmetic: RFC 9669, section 4.1.
ADD: Final = 0x00
SUB: Final = 0x10
MUL: Final = 0x20
DIV: Final = 0x30
OR: Final = 0x40
AND: Final = 0x50
LSH: Final = 0x60
RSH: Final = 0x70
NEG: Final = 0x80
MOD: Final = 0x90
XOR: Final = 0xA0
MOV: Final = 0xB0
ARSH: Final = 0xC0
END: Final = 0xD0

# Jumps: RFC 9669, section 4.3.
JA: Final = 0x00
JEQ: Final = 0x10
JGT: Final = 0x20
JGE: Final = 0x30
JSET: Final = 0x40
JNE: Final = 0x50
JSGT: Final = 0x60
JSGE: Final = 0x70
CALL: Final = 0x80
EXIT: Final = 0x90
JLT: Final = 0xA0
JLE: Final = 0xB0
JSLT: Final = 0xC0
JSLE: Final = 0xD0

JCOND: Final = 0xE0
"""may_goto, a jump of Linux that the RFC does not have (``include/uapi/linux/bpf.h``)."""

# Atomic operations, in `imm`: RFC 9669, section 5.3.
FETCH: Final = 0x01
XCHG: Final = 0xE0 | FETCH
CMPXCHG: Final = 0xF0 | FETCH

# Atomic loads and stores of Linux, in `imm` too (include/uapi/linux/bpf.h).
LOAD_ACQ: Final = 0x100
STORE_REL: Final = 0x110

LD_IMM64: Final = LD | IMM | DW
"""The one instruction that takes two slots (RFC 9669, section 5.4)."""

# `src_reg` of ld_imm64 (include/uapi/linux/bpf.h).
PSEUDO_MAP_FD: Final = 1
PSEUDO_MAP_VALUE: Final = 2
PSEUDO_BTF_ID: Final = 3
PSEUDO_FUNC: Final = 4
PSEUDO_MAP_IDX: Final = 5
PSEUDO_MAP_IDX_VALUE: Final = 6

# `src_reg` of a call (include/uapi/linux/bpf.h).
PSEUDO_CALL: Final = 1
PSEUDO_KFUNC_CALL: Final = 2
PSEUDO_KFUNC_CALL_PROG_BTF: Final = 3
"""A kfunc named by a FUNC of the program's own BTF. The kernel series that adds it does not show
the value in the copies that are public; 3 is the next free one, and a kernel built with 3 takes
our loaders."""

ACCESS_BYTES: Final = {W: 4, H: 2, B: 1, DW: 8}
"""Bytes accessed, by size field."""
