"""Programs that a process without CAP_PERFMON may not load, with errno and reason.

They are those of Linux 6.18.44. Started as a program, as root, this gives up all capabilities but
CAP_BPF and prints what the running kernel says to each, as JSON; `test_rights` does so.
"""

from __future__ import annotations

import ctypes
import json
import struct
import sys
from collections.abc import Sequence
from errno import EACCES, EINVAL, EPERM
from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    Insn,
    alu64_imm,
    call_helper,
    jmp_imm,
    jmp_reg,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    st_mem,
    stx_mem,
)
from bpfseal.bpf.uapi import Helper, MapType
from bpfseal.kernel.linux.kernel import LinuxKernel
from bpfseal.kernel.protocol import Kernel, MapCreate

from .compare import Verdict, load, maps_of
from .refusals import DW, END, MAP, VALUE, Refusal, W, X

SPILLED = stx_mem(DW, 10, 10, -8)


def _stack(register: int, off: int) -> Sequence[Insn]:
    return mov64_reg(register, 10), alu64_imm(op.ADD, register, off)


# fmt: off
WITHOUT_PERFMON: Final[dict[str, Refusal]] = {
    "struct bpf_map": Refusal((*MAP, ldx_mem(DW, 0, 1, 0), X), EPERM,
        "'struct bpf_array' access is allowed only to CAP_PERFMON and CAP_SYS_ADMIN"),
    "stack that nobody uses": Refusal((ldx_mem(DW, 0, 10, -8), X), EACCES,
        "invalid read from stack R10 off=-8 size=8"),
    "stack that was written in part": Refusal(
        (st_mem(W, 10, -8, 1), ldx_mem(DW, 0, 10, -8), X), EACCES,
        "invalid read from stack off -8+4 size 8"),
    "a pointer as the result": Refusal((mov64_reg(0, 10), X), EACCES,
        "R0 leaks addr as return value"),
    "half a pointer": Refusal((Insn(op.ALU | op.MOV | op.X, 2, 10), *END), EACCES,
        "R10 partial copy of pointer"),
    "a sign-extended part of a pointer": Refusal(
        (Insn(op.ALU64 | op.MOV | op.X, 2, 10, 8), *END), EACCES,
        "R10 sign-extension part of pointer"),
    "a pointer compared with a number": Refusal((jmp_imm(op.JEQ, 10, 5, 0), *END), EACCES,
        "R10 pointer comparison prohibited"),
    "a number compared with a pointer": Refusal(
        (mov64_imm(2, 1), jmp_reg(op.JEQ, 2, 10, 0), *END), EACCES,
        "R10 pointer comparison prohibited"),
    "a negated pointer": Refusal((mov64_reg(2, 10), Insn(op.ALU64 | op.NEG, 2), *END), EACCES,
        "R2 pointer arithmetic prohibited"),
    "a swapped pointer": Refusal((mov64_reg(2, 10), Insn(0xD7, 2, 0, 0, 64), *END), EACCES,
        "R2 pointer arithmetic prohibited"),
    "half a pointer less a number": Refusal(
        (mov64_reg(2, 10), Insn(op.ALU | op.SUB, 2, 0, 0, 1), *END), EACCES,
        "R2 32-bit pointer arithmetic prohibited"),
    "the difference of two pointers": Refusal(
        (mov64_reg(2, 10), Insn(op.ALU64 | op.SUB | op.X, 2, 10), *END), EACCES,
        "R2 pointer -= pointer prohibited"),
    "a pointer in a map": Refusal((*VALUE, stx_mem(DW, 1, 10, 0), *END), EACCES,
        "R10 leaks addr into map"),
    "a pointer in the context": Refusal((stx_mem(DW, 1, 10, 0), *END), EACCES,
        "R10 leaks addr into ctx"),
    "a part of a spilled pointer written": Refusal((SPILLED, st_mem(W, 10, -8, 1), *END), EACCES,
        "attempt to corrupt spilled pointer on stack"),
    "another part of it": Refusal((SPILLED, st_mem(W, 10, -4, 1), *END), EACCES,
        "attempt to corrupt spilled pointer on stack"),
    "an atomic with a pointer": Refusal(
        (st_mem(DW, 10, -8, 1), Insn(op.STX | op.ATOMIC | DW, 10, 10, -8), *END), EACCES,
        "R10 leaks addr into mem"),
    "a stack pointer that varies": Refusal(
        (*VALUE, ldx_mem(W, 2, 1, 0), alu64_imm(op.AND, 2, 7), *_stack(3, -16),
         Insn(op.ALU64 | op.ADD | op.X, 3, 2), *END), EACCES,
        "R3 variable stack access prohibited for !root, var_off=(0x0; 0x7) off=-16"),
    "a pointer for a number": Refusal(
        (st_mem(DW, 10, -8, 0), st_mem(DW, 10, -16, 0), *_stack(1, -8), mov64_imm(2, 8),
         mov64_reg(3, 10), *_stack(4, -16), call_helper(Helper.STRTOL), *END), EACCES,
        "R3 leaks addr into helper function"),
    "system calls": Refusal((call_helper(Helper.SYS_BPF), X), EINVAL,
        "program of this type cannot use helper bpf_sys_bpf#166"),
    "copies of memory": Refusal((call_helper(Helper.PROBE_READ_KERNEL), X), EINVAL,
        "program of this type cannot use helper bpf_probe_read_kernel#113"),
    "nothing: a spilled pointer is overwritten": Refusal(
        (SPILLED, st_mem(DW, 10, -8, 1), *END), 0, ""),
    "nothing: an index into a map": Refusal(
        (*VALUE, ldx_mem(W, 2, 1, 0), alu64_imm(op.AND, 2, 7),
         Insn(op.ALU64 | op.ADD | op.X, 1, 2), st_mem(op.B, 1, 0, 1), *END), 0, ""),
}
# fmt: on
"""By what the process may not do; ``nothing`` where it may."""


def judge_all(kernel: Kernel) -> dict[str, Verdict]:
    """Return what a kernel says to each program."""
    judged = {}
    with maps_of(kernel, [MapCreate(MapType.ARRAY, "map", 4, 64, 1)]) as fds:
        for name, refusal in WITHOUT_PERFMON.items():
            judged[name], loaded = load(kernel, list(refusal.insns), fds)
            if loaded >= 0:
                kernel.close(loaded)
    return judged


_CAPSET: Final = 126  # x86-64
_VERSION: Final = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_CAP_BPF: Final = 39


def keep_cap_bpf_only() -> None:
    """Give up all capabilities of this process but CAP_BPF."""
    header = struct.pack("<Ii", _VERSION, 0)
    high = 1 << _CAP_BPF - 32
    data = struct.pack("<6I", 0, 0, 0, high, high, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(_CAPSET, header, data):
        raise OSError(ctypes.get_errno(), "capset")


if __name__ == "__main__":
    keep_cap_bpf_only()
    json.dump(judge_all(LinuxKernel()), sys.stdout)
