"""Programs that a verifier refuses, with the errno and the last line of its log.

Errnos and texts are those of Linux 6.18.44; `test_refusals` asks the running kernel again where it
can. The maps are those of `MAPS`, by their index in the fd array.
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import E2BIG, EACCES, EBADF, EINVAL
from typing import Final, NamedTuple

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    Insn,
    alu32_imm,
    alu64_imm,
    call_helper,
    exit_insn,
    jmp_imm,
    jump,
    ld_imm64,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    st_mem,
    stx_mem,
)
from bpfseal.bpf.uapi import Helper, MapFlag, MapType
from bpfseal.kernel.model.refusal import ENOTSUPP
from bpfseal.kernel.protocol import MapCreate

W, DW = op.W, op.DW
X = exit_insn()
R0 = mov64_imm(0, 0)
END = (R0, X)

MAPS: Final = (
    MapCreate(MapType.ARRAY, "meta", 4, 64, 1),
    MapCreate(MapType.HASH, "table", 4, 8, 4),
    MapCreate(MapType.ARRAY, "ro", 4, 64, 1, flags=MapFlag.RDONLY_PROG),
    MapCreate(MapType.ARRAY, "many", 4, 8, 10),
)
MAP = tuple(ld_imm64(1, op.PSEUDO_MAP_IDX, 0))
VALUE = tuple(ld_imm64(1, op.PSEUDO_MAP_IDX_VALUE, 0))
READ_ONLY = tuple(ld_imm64(1, op.PSEUDO_MAP_IDX_VALUE, 2))
LOOKUP = (
    *ld_imm64(1, op.PSEUDO_MAP_IDX, 3),
    ldx_mem(W, 3, 10, -4),
    stx_mem(W, 10, 3, -4),
    mov64_reg(2, 10),
    alu64_imm(op.ADD, 2, -4),
    call_helper(Helper.MAP_LOOKUP_ELEM),
)


def _add(dst: int, src: int) -> Insn:
    return Insn(op.ALU64 | op.ADD | op.X, dst, src)


def _stack(register: int, off: int) -> Sequence[Insn]:
    return mov64_reg(register, 10), alu64_imm(op.ADD, register, off)


def _read(size: Sequence[Insn], to: Sequence[Insn] = _stack(1, -16)) -> Sequence[Insn]:
    """Call ``bpf_probe_read_kernel(to, size, NULL)``."""
    return *to, *size, mov64_imm(3, 0), call_helper(Helper.PROBE_READ_KERNEL), *END


class Refusal(NamedTuple):
    """A program, and why a verifier refuses it."""

    insns: Sequence[Insn]
    errno: int
    reason: str


_MEMORY = "fp, pkt, pkt_meta, map_key, map_value, mem, ringbuf_mem, buf, trusted_ptr_"

# fmt: off
REFUSALS: Final[dict[str, Refusal]] = {
    # shape
    "unreachable insn": Refusal((*END, R0, X), EINVAL, "unreachable insn 2"),
    "endless goto leaves the end unreached": Refusal((R0, jump(-2), X), EINVAL,
        "unreachable insn 2"),
    "jump out of the program": Refusal((R0, jump(5), X), EINVAL,
        "jump out of range from insn 1 to 7"),
    "the end falls through": Refusal((X, R0), EINVAL, "last insn is not an exit or jmp"),
    "a jump out of its function": Refusal(
        (jmp_imm(op.JEQ, 1, 0, 2), Insn(0x85, 0, 1, 0, 1), X, R0, X), EINVAL,
        "jump out of range from insn 0 to 3"),
    "a loop without progress": Refusal(
        (R0, mov64_imm(1, 0), jmp_imm(op.JEQ, 1, 0, -2), X), EINVAL,
        "infinite loop detected at insn 1"),
    "a recursion": Refusal((Insn(0x85, 0, 1, 0, -1), X), E2BIG,
        "the call stack of 9 frames is too deep"),
    "functions whose stacks do not fit together": Refusal(
        (st_mem(DW, 10, -256, 0), Insn(0x85, 0, 1, 0, 1), X, st_mem(DW, 10, -264, 0), R0, X),
        EACCES, "combined stack size of 2 calls is 528. Too large"),
    # fields, which are looked at where a path leads but for those of loads
    "a reserved field": Refusal((R0, Insn(op.JMP | op.EXIT, 1)), EINVAL,
        "BPF_EXIT uses reserved fields"),
    "a reserved field behind a register without a value": Refusal(
        (mov64_reg(0, 2), Insn(op.JMP | op.EXIT, 1)), EACCES, "R2 !read_ok"),
    "a reserved field of a load": Refusal(
        (mov64_reg(0, 2), Insn(op.LDX | op.MEM | DW, 0, 10, -8, 1), X), EINVAL,
        "BPF_LDX uses reserved fields"),
    "an opcode that does not exist": Refusal((mov64_reg(0, 2), Insn(0xFF), X), EINVAL,
        "unknown opcode ff"),
    "a comparison of a register that does not exist, with a reserved field": Refusal(
        (Insn(op.JMP | op.JEQ | op.X, 12, 0, 0, 1), X), EINVAL, "R12 is invalid"
    ),
    "a register that does not exist": Refusal((mov64_reg(0, 12), X), EINVAL, "R12 is invalid"),
    "the frame pointer written from no value": Refusal((mov64_reg(10, 2), X), EACCES,
        "R2 !read_ok"),
    "the frame pointer written": Refusal((mov64_imm(10, 0), *END), EACCES,
        "frame pointer is read only"),
    "a closed fd for a map, before an opcode that does not exist": Refusal(
        (*ld_imm64(1, op.PSEUDO_MAP_FD, 9999), Insn(0xFF), X), EBADF,
        "fd 9999 is not pointing to valid bpf_map"),
    "an opcode that does not exist, before a closed fd": Refusal(
        (Insn(0xFF), *ld_imm64(1, op.PSEUDO_MAP_FD, 9999), X), EINVAL, "unknown opcode ff"),
    "a kernel symbol of a module without a BTF fd": Refusal(
        (*ld_imm64(1, op.PSEUDO_BTF_ID, 1, 9999), *END), EINVAL,
        "invalid module BTF object FD specified."),
    "a kfunc that is no function, before a closed fd": Refusal(
        (*ld_imm64(1, op.PSEUDO_MAP_FD, 9999), Insn(0x85, 0, 2, 0, 0x7FFFFFFF), X), EINVAL,
        "kernel btf_id 2147483647 is not a function"),
    # registers
    "a register without a value": Refusal((mov64_reg(0, 2), X), EACCES, "R2 !read_ok"),
    "no result": Refusal((X,), EACCES, "R0 !read_ok"),
    "an argument after a call": Refusal(
        (call_helper(Helper.KTIME_GET_NS), mov64_reg(0, 1), X), EACCES, "R1 !read_ok"),
    "a register of the caller": Refusal(
        (mov64_imm(6, 1), Insn(0x85, 0, 1, 0, 1), X, mov64_reg(0, 6), X), EACCES, "R6 !read_ok"),
    "the stack of a function that returned": Refusal(
        (Insn(0x85, 0, 1, 0, 1), X, mov64_reg(0, 10), X), EINVAL,
        "cannot return stack pointer to the caller"),
    # the stack
    "a store at the frame pointer": Refusal((st_mem(W, 10, 0, 0), *END), EACCES,
        "invalid write to stack R10 off=0 size=4"),
    "a load below the stack": Refusal((ldx_mem(W, 0, 10, -516), X), EACCES,
        "invalid read from stack R10 off=-516 size=4"),
    "a misaligned store to the stack": Refusal((st_mem(W, 10, -6, 0), *END), EACCES,
        "misaligned stack access off 0+0+-6 size 4"),
    "a part of a spilled pointer": Refusal(
        (stx_mem(DW, 10, 1, -8), ldx_mem(W, 0, 10, -8), X), EACCES,
        "invalid size of register fill"),
    "a pointer stored in parts": Refusal((stx_mem(W, 10, 1, -8), *END), EACCES,
        "invalid size of register spill"),
    "a subtraction from the stack pointer": Refusal(
        (mov64_reg(2, 10), alu64_imm(op.SUB, 2, 8), *END), EACCES,
        "R2 subtraction from stack pointer prohibited"),
    # the context
    "a moved context pointer": Refusal(
        (alu64_imm(op.ADD, 1, 8), ldx_mem(W, 0, 1, 0), X), EACCES,
        "dereference of modified ctx ptr R1 off=8 disallowed"),
    "before the context": Refusal((ldx_mem(W, 0, 1, -4), X), EACCES,
        "invalid bpf_context access off=-4 size=4"),
    "a misaligned load of the context": Refusal((ldx_mem(W, 0, 1, 2), X), EACCES,
        "invalid bpf_context access off=2 size=4"),
    "an atomic on the context": Refusal(
        (mov64_imm(2, 1), Insn(0xDB, 1, 2), *END), EACCES,
        "BPF_ATOMIC stores into R1 ctx is not allowed"),
    "a number as a pointer": Refusal((mov64_imm(1, 1), ldx_mem(W, 0, 1, 0), X), EACCES,
        "R1 invalid mem access 'scalar'"),
    # map values
    "behind a map value": Refusal((*VALUE, ldx_mem(W, 0, 1, 61), X), EACCES,
        "R1 min value is outside of the allowed memory range"),
    "before a map value": Refusal((*VALUE, ldx_mem(W, 0, 1, -1), X), EACCES,
        "R1 min value is outside of the allowed memory range"),
    "an index that may be too large": Refusal(
        (*VALUE, ldx_mem(W, 2, 1, 0), alu64_imm(op.AND, 2, 63), _add(1, 2), ldx_mem(W, 0, 1, 0),
         X), EACCES, "R1 max value is outside of the allowed memory range"),
    "an index without a bound": Refusal(
        (*VALUE, ldx_mem(W, 2, 1, 0), _add(1, 2), ldx_mem(W, 0, 1, 0), X), EACCES,
        "R1 unbounded memory access, make sure to bounds check any such access"),
    "an index of any sign": Refusal(
        (*VALUE, ldx_mem(DW, 2, 1, 0), _add(1, 2), *END), EINVAL,
        "math between map_value pointer and register with unbounded min value is not allowed"),
    "a store to a read-only map": Refusal((*READ_ONLY, st_mem(W, 1, 0, 1), *END), EACCES,
        "write into map forbidden, value_size=64 off=0 size=4"),
    "a misaligned atomic": Refusal((*VALUE, mov64_imm(2, 1), Insn(0xDB, 1, 2, 4), *END), EACCES,
        "misaligned value access off 0+0+4 size 8"),
    "a place behind the value": Refusal(
        (*ld_imm64(1, op.PSEUDO_MAP_IDX_VALUE, 0, 70), *END), EINVAL,
        "invalid access to map value pointer, value_size=64 off=70"),
    "a lookup that was not tested": Refusal((*LOOKUP, ldx_mem(W, 0, 0, 0), X), EACCES,
        "R0 invalid mem access 'map_value_or_null'"),
    "arithmetic before the test": Refusal((*LOOKUP, alu64_imm(op.ADD, 0, 4), *END), EACCES,
        "R0 pointer arithmetic on map_value_or_null prohibited, null-check it first"),
    # struct bpf_map
    "behind sha": Refusal((*MAP, ldx_mem(DW, 0, 1, 28), X), EACCES,
        "access beyond the end of member sha (mend:32) in struct bpf_map with off 28 size 8"),
    "half a pointer": Refusal((*MAP, ldx_mem(W, 0, 1, 40), X), EACCES,
        "cannot access ptr member ops with moff 40 in struct bpf_map with off 40 size 4"),
    "a gap": Refusal((*MAP, ldx_mem(W, 0, 1, 36), X), EINVAL,
        "struct bpf_map doesn't have field at offset 36"),
    "before the map": Refusal((*MAP, ldx_mem(DW, 0, 1, -8), X), EACCES,
        "R1 is bpf_array invalid negative access: off=-8"),
    "a store to the map": Refusal((*MAP, st_mem(W, 1, 0, 1), *END), EACCES,
        "only read from bpf_array is supported"),
    "a moved map pointer": Refusal((*MAP, alu64_imm(op.ADD, 1, 8), *END), EACCES,
        "R1 pointer arithmetic on map_ptr prohibited"),
    # arithmetic
    "a product with a pointer": Refusal((alu64_imm(op.MUL, 1, 2), *END), EACCES,
        "R1 pointer arithmetic with *= operator prohibited"),
    "bits of a pointer": Refusal((alu64_imm(op.AND, 1, 2), *END), EACCES,
        "R1 bitwise operator &= on pointer prohibited"),
    "half a pointer moved": Refusal((alu32_imm(op.ADD, 1, 2), *END), EACCES,
        "R1 32-bit pointer arithmetic prohibited"),
    "a number less a pointer": Refusal(
        (mov64_imm(2, 5), Insn(op.ALU64 | op.SUB | op.X, 2, 1), *END), EACCES,
        "R2 tried to subtract pointer from scalar"),
    "any number less a pointer": Refusal(
        (ldx_mem(DW, 2, 1, 0), Insn(op.ALU64 | op.SUB | op.X, 2, 1), *END), EINVAL,
        "math between ctx pointer and register with unbounded min value is not allowed"),
    "the sum of two pointers": Refusal((_add(1, 10), *END), EACCES,
        "R1 pointer += pointer prohibited"),
    "too far": Refusal((alu64_imm(op.ADD, 1, 1 << 29), *END), EINVAL,
        "math between ctx pointer and 536870912 is not allowed"),
    "a division of no value by zero": Refusal((alu64_imm(op.DIV, 2, 0), X), EACCES, "R2 !read_ok"),
    "division by zero": Refusal((R0, alu64_imm(op.DIV, 0, 0), X), EINVAL, "div by zero"),
    "a shift by the width": Refusal((R0, alu64_imm(op.LSH, 0, 64), X), EINVAL, "invalid shift 64"),
    # helpers
    "a helper that does not exist": Refusal((call_helper(5000), X), EINVAL,
        "invalid func unknown#5000"),
    "a helper for other programs": Refusal((call_helper(9), X), EINVAL,
        "program of this type cannot use helper bpf_skb_store_bytes#9"),
    "a write above the stack": Refusal(_read([mov64_imm(2, 17)]), EINVAL,
        "invalid write to stack R1 off=-16 size=17"),
    "a write below the stack": Refusal(_read([mov64_imm(2, 8)], _stack(1, -520)), EACCES,
        "invalid write to stack R1 off=-520 size=8"),
    "a negative size": Refusal(_read([mov64_imm(2, -1)]), EACCES,
        "R2 min value is negative, either use unsigned or 'var &= const'"),
    "a size without a bound": Refusal((*VALUE, ldx_mem(W, 2, 1, 0), *_read([])), EACCES,
        "R2 unbounded memory access, use 'var &= const' or 'if (var < const)'"),
    "a size that may be too large": Refusal(
        (*VALUE, ldx_mem(W, 2, 1, 0), alu64_imm(op.AND, 2, 31), *_read([])), EINVAL,
        "invalid write to stack R1 off=-16 size=31"),
    "a size that is a pointer": Refusal(_read([mov64_reg(2, 10)]), EACCES,
        "R2 type=fp expected=scalar"),
    "a number for memory": Refusal(_read([mov64_imm(2, 8)], [mov64_imm(1, 5)]), EACCES,
        f"R1 type=scalar expected={_MEMORY}"),
    "a map for memory": Refusal(_read([mov64_imm(2, 8)], MAP), EACCES,
        f"R1 type=map_ptr expected={_MEMORY}"),
    "the context for memory": Refusal(
        (mov64_imm(2, 8), mov64_imm(3, 0), call_helper(Helper.PROBE_READ_KERNEL), *END), EACCES,
        f"R1 type=ctx expected={_MEMORY}"),
    "more than a map value": Refusal(_read([mov64_imm(2, 65)], VALUE), EACCES,
        "R1 min value is outside of the allowed memory range"),
    "a read-only map written by a helper": Refusal(_read([mov64_imm(2, 4)], READ_ONLY), EACCES,
        "write into map forbidden, value_size=64 off=0 size=4"),
    "no bytes where some must be": Refusal(
        (*_stack(2, -8), mov64_imm(1, 0), mov64_imm(3, 0), call_helper(Helper.SYS_BPF), X),
        EACCES, "R3 invalid zero-sized read: u64=[0,0]"),
    "a misaligned result": Refusal(
        (*_stack(1, -8), mov64_imm(2, 8), mov64_imm(3, 0), *_stack(4, -12),
         call_helper(Helper.KALLSYMS_LOOKUP_NAME), X), EACCES,
        "misaligned stack access off 0+-12+0 size 8"),
    "an update of a read-only map": Refusal(
        (*ld_imm64(1, op.PSEUDO_MAP_IDX, 2), *_stack(2, -8), *_stack(3, -80), mov64_imm(4, 0),
         call_helper(Helper.MAP_UPDATE_ELEM), *END), EACCES, "write into map forbidden"),
    "a map that is none": Refusal((*_stack(2, -8), call_helper(Helper.MAP_LOOKUP_ELEM), *END),
        EACCES, "R1 type=ctx expected=map_ptr"),
}
# fmt: on
"""By what is wrong."""

UNMEASURED: Final[dict[str, Refusal]] = {
    "a helper that the model lacks": Refusal(
        (call_helper(169), X), ENOTSUPP, "the model does not have the helper bpf_timer_init#169"
    ),
}
"""What the model refuses and a kernel might not."""
