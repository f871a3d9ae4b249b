"""Steps of a loader program, each a few instructions with some numbers to fill in.

They are here because two sides need them: the generator puts loaders together of them, and the
reader of loaders (`bpfseal.loader.forms`) recognizes them. What belongs to every kind of loader
program is in `bpfseal.loader.emitter`.
"""

from __future__ import annotations

import errno
from typing import Final

from bpfseal.bpf import attr
from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    INSN_SIZE,
    alu32_imm,
    alu64_imm,
    call_helper,
    exit_insn,
    jmp_imm,
    jump,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    st_mem,
    stx_mem,
)
from bpfseal.bpf.uapi import Helper
from bpfseal.loader.emitter import R8, Emitter

_R0, _R1, _R2, _R3, _R4, _R6, _R7, _R9 = 0, 1, 2, 3, 4, 6, 7, 9
_CTX_FLAGS = 4
_CTX_IN_KERNEL = 1
CTX_LOG: Final = (("log_level", 4, 8), ("log_size", 4, 12), ("log_buf", 8, 16))
"""What the host wants of the log: field of the attribute, size, offset in the context."""

DESC_MAX_ENTRIES: Final = 4
DESC_INITIAL_VALUE: Final = 8
"""Offsets in ``struct bpf_map_desc``."""

CORE_RELO_SIZE: Final = 16
"""Bytes of ``struct bpf_core_relo``."""

_REGS, _OFF, _IMM = 1, 2, 4
"""Offsets of the fields of an instruction."""
_NEXT_IMM = INSN_SIZE + _IMM

COPIED_CALL: Final = ((_IMM, 4), (_OFF, 2))
COPIED_TYPED: Final = ((_NEXT_IMM, 4), (_IMM, 4))
COPIED_TYPELESS: Final = ((_IMM, 4), (_NEXT_IMM, 4))
"""The fields, as offset and size, that a later use copies from the first one."""

TYPED_FD: Final = _NEXT_IMM
"""Where in an instruction the fd of the BTF lies that a typed symbol was found in."""


def take_value_from_host(emitter: Emitter, ctx_offset: int, value: int, size: int) -> None:
    """Replace a value in the blob by that at the address in the context, if there is one."""
    emitter.emit(ldx_mem(op.DW, _R3, _R6, ctx_offset), jmp_imm(op.JEQ, _R3, 0, 8))
    emitter.blob_address(_R1, value)
    emitter.emit(
        mov64_imm(_R2, size),
        ldx_mem(op.W, _R0, _R6, _CTX_FLAGS),
        jmp_imm(op.JSET, _R0, _CTX_IN_KERNEL, 2),
        call_helper(Helper.COPY_FROM_USER),
        jump(1),
        call_helper(Helper.PROBE_READ_KERNEL),
    )


def keep_attach_target(emitter: Emitter, at: int) -> None:
    """Write the id and BTF fd in r7 into the attribute of BPF_PROG_LOAD at an offset."""
    layout = attr.PROG_LOAD
    emitter.blob_address(_R0, at)
    emitter.emit(
        stx_mem(op.W, _R0, _R7, layout.offset("attach_btf_id")),
        alu64_imm(op.RSH, _R7, 32),
        stx_mem(op.W, _R0, _R7, layout.offset("attach_btf_obj_fd")),
    )


def leave(emitter: Emitter) -> None:
    """Return 0: everything was made."""
    emitter.emit(mov64_imm(_R0, 0), exit_insn())


# Kernel symbols: r8 is the address of the instruction that is relocated.


def keep_call(emitter: Emitter, slot: int, offset: int) -> None:
    """Write the kfunc in r7 into the call, and its BTF's fd into a slot of the fd array."""
    emitter.emit(
        jmp_imm(op.JSGE, _R7, 0, 3),
        # not found: a call of nothing, which is fine where it is never reached
        st_mem(op.W, R8, _IMM, 0),
        st_mem(op.H, R8, _OFF, 0),
        jump(10),
        # found: the id goes into the instruction, the BTF's fd into the fd array
        stx_mem(op.W, R8, _R7, _IMM),
        mov64_reg(_R9, _R7),
        alu64_imm(op.RSH, _R9, 32),
    )
    emitter.blob_address(_R0, offset)
    emitter.emit(
        stx_mem(op.W, _R0, _R9, 0),
        jmp_imm(op.JNE, _R9, 0, 2),
        # vmlinux: no fd
        st_mem(op.H, R8, _OFF, 0),
        jump(1),
        st_mem(op.H, R8, _OFF, slot),
    )


def keep_typed(emitter: Emitter) -> None:
    """Write the id and BTF fd in r7 into the instruction."""
    emitter.emit(
        jmp_imm(op.JSGE, _R7, 0, 3),
        # not found: both halves of the address are zero
        st_mem(op.W, R8, _IMM, 0),
        st_mem(op.W, R8, _NEXT_IMM, 0),
        jump(4),
        # found: id and BTF fd
        stx_mem(op.W, R8, _R7, _IMM),
        alu64_imm(op.RSH, _R7, 32),
        stx_mem(op.W, R8, _R7, _NEXT_IMM),
        jump(3),
    )
    _clear_source(emitter)


def clear_source_if_absent(emitter: Emitter) -> None:
    """After a copy: a symbol that is not there has no BTF id."""
    emitter.emit(jmp_imm(op.JNE, _R0, 0, 3))
    _clear_source(emitter)


def _clear_source(emitter: Emitter) -> None:
    """Take the BTF pseudo source away: a symbol that is not there is a plain zero."""
    mask = 0x0F if emitter.byteorder == "little" else 0xF0
    emitter.emit(
        ldx_mem(op.B, _R9, R8, _REGS),
        alu32_imm(op.AND, _R9, mask),
        stx_mem(op.B, R8, _R9, _REGS),
    )


def look_up_address(emitter: Emitter, name: int, size: int, result: int) -> None:
    """Look a symbol up in kallsyms; the address goes into the blob and r9, the result into r7."""
    emitter.blob_address(_R1, name)
    emitter.emit(mov64_imm(_R2, size), mov64_imm(_R3, 0))
    emitter.blob_address(_R4, result)
    emitter.emit(
        mov64_reg(_R7, _R4),
        call_helper(Helper.KALLSYMS_LOOKUP_NAME),
        ldx_mem(op.DW, _R9, _R7, 0),
        mov64_reg(_R7, _R0),
    )


def allow_absent(emitter: Emitter) -> None:
    """A symbol that is not there is no error: pass over the check of the result."""
    emitter.emit(jmp_imm(op.JEQ, _R7, -errno.ENOENT, 1))


def keep_address(emitter: Emitter) -> None:
    """Write the address in r9 into the instruction."""
    emitter.emit(
        stx_mem(op.W, R8, _R9, _IMM),
        alu64_imm(op.RSH, _R9, 32),
        stx_mem(op.W, R8, _R9, _NEXT_IMM),
    )


def read_call(emitter: Emitter) -> None:
    """Read what was written into a call, to print it."""
    emitter.emit(ldx_mem(op.W, _R7, R8, _IMM), ldx_mem(op.H, _R9, R8, _OFF))


def read_fd(emitter: Emitter, offset: int) -> None:
    """Read a slot of the fd array, to print it."""
    emitter.blob_address(_R0, offset)
    emitter.emit(ldx_mem(op.W, _R9, _R0, 0))


def read_address(emitter: Emitter) -> None:
    """Read what was written into a load of an address: half of the upper word, as the reference."""
    emitter.emit(ldx_mem(op.W, _R7, R8, _IMM), ldx_mem(op.H, _R9, R8, _NEXT_IMM))


def read_registers(emitter: Emitter) -> None:
    """Read the registers of the instruction, to print them."""
    emitter.emit(ldx_mem(op.B, _R9, R8, _REGS))
