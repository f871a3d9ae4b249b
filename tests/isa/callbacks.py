"""Programs with functions that helpers call, with what a verifier says and what they return.

Errnos, texts and results are those of Linux 6.18.44; `test_callbacks` asks the running kernel too.
The maps are those of `MAPS`, by their index in the fd array.
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import E2BIG, EACCES, EINVAL
from typing import Final, NamedTuple

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    Insn,
    alu64_imm,
    call_helper,
    jmp_imm,
    jump,
    ld_imm64,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    st_mem,
    stx_mem,
)
from bpfseal.bpf.uapi import Helper, MapType
from bpfseal.kernel.protocol import MapCreate

from .refusals import DW, R0, W, X

GO_ON = (R0, X)
STOP = (mov64_imm(0, 1), X)

MAPS: Final = (MapCreate(MapType.ARRAY, "values", 4, 8, 5),)


class Case(NamedTuple):
    """A main program, the function behind it, and the answer.

    Attributes:
        main: ends where the function begins.
        function: what the helper calls; `CALLED` in `main` takes its address.
        errno: 0 for a program that is accepted.
        reason: the last line of the log.
        result: what a run returns.
        is_static: whether the function is static.
    """

    main: Sequence[Insn]
    function: Sequence[Insn]
    errno: int = 0
    reason: str = ""
    result: int = 0
    is_static: bool = True


CALLED: Final = ld_imm64(2, op.PSEUDO_FUNC, 0)
"""``r2 = &function``; `insns_of` puts the distance in."""


def insns_of(case: Case) -> list[Insn]:
    """Return both parts as one program."""
    insns = [*case.main, *case.function]
    for index, insn in enumerate(case.main):
        if insn == CALLED[0]:
            insns[index] = insn._replace(imm=len(case.main) - index - 1)
    return insns


def _loop(count: Sequence[Insn], *before: Insn, after: Sequence[Insn] = (X,)) -> Sequence[Insn]:
    """Call ``bpf_loop`` with the stack below r10 - 8 as context."""
    return (
        *before, *count, *CALLED, mov64_reg(3, 10), alu64_imm(op.ADD, 3, -8), mov64_imm(4, 0),
        call_helper(Helper.LOOP), *after,
    )  # fmt: skip


def _times(count: int) -> Sequence[Insn]:
    return (mov64_imm(1, count),)


ZERO = st_mem(DW, 10, -8, 0)
COUNT_UP = (ldx_mem(DW, 1, 2, 0), alu64_imm(op.ADD, 1, 1), stx_mem(DW, 2, 1, 0))
SUM = (ldx_mem(DW, 0, 10, -8), X)
EACH = (
    *ld_imm64(1, op.PSEUDO_MAP_IDX, 0), *CALLED, mov64_reg(3, 10), alu64_imm(op.ADD, 3, -8),
    mov64_imm(4, 0), call_helper(Helper.FOR_EACH_MAP_ELEM), X,
)  # fmt: skip
BELOW = (*_loop(_times(3), ZERO),)

# fmt: off
CASES: Final[dict[str, Case]] = {
    "a loop returns how often it ran": Case(BELOW, GO_ON, result=3),
    "a loop that is stopped": Case(BELOW, STOP, result=1),
    "a loop that ends itself": Case(
        _loop(_times(100), ZERO),
        (R0, jmp_imm(op.JLT, 1, 6, 1), mov64_imm(0, 1), X), result=7),
    "no round at all": Case(_loop(_times(0), ZERO), GO_ON, result=0),
    "a loop changes its caller's stack": Case(
        _loop(_times(10), ZERO, after=SUM), (*COUNT_UP, *GO_ON), result=10),
    "a loop of a thousand rounds": Case(
        _loop(_times(1000), ZERO, after=SUM), (*COUNT_UP, *GO_ON), result=1000),
    "flags of a loop": Case(
        (*_loop(_times(3), ZERO)[:-3], mov64_imm(4, 1), *_loop(_times(3), ZERO)[-2:]), GO_ON,
        result=-EINVAL),
    "too many rounds": Case(_loop(_times(8 * 1024 * 1024 + 1), ZERO), GO_ON, result=-E2BIG),
    "no context": Case(
        (*_times(2), *CALLED, mov64_imm(3, 0), mov64_imm(4, 0), call_helper(Helper.LOOP), X),
        GO_ON, result=2),
    "a callee's registers are its own": Case(
        _loop(_times(3), ZERO, mov64_imm(6, 42), after=(mov64_reg(0, 6), X)),
        (mov64_imm(6, 7), *GO_ON), result=42),
    "each element of an array": Case((ZERO, *EACH), GO_ON, result=5),
    "each element until one": Case(
        (ZERO, *EACH), (ldx_mem(W, 1, 2, 0), R0, jmp_imm(op.JNE, 1, 2, 1), mov64_imm(0, 1), X),
        result=3),
    "elements can be written": Case(
        (ZERO, *EACH[:-1], *EACH[:-2], call_helper(Helper.FOR_EACH_MAP_ELEM), *SUM),
        (ldx_mem(DW, 1, 3, 0), alu64_imm(op.ADD, 1, 2), stx_mem(DW, 3, 1, 0),
         ldx_mem(DW, 5, 4, 0), Insn(op.ALU64 | op.ADD | op.X, 5, 1), stx_mem(DW, 4, 5, 0), *GO_ON),
        result=5 * 2 + 5 * 4),
    "a result that is neither 0 nor 1": Case(BELOW, (mov64_imm(0, 2), X), EINVAL,
        "At callback return the register R0 has smin=2 smax=2 should have been in [0, 1]"),
    "any result": Case(BELOW, (mov64_reg(0, 1), X), EINVAL,
        "At callback return the register R0 has unknown scalar value should have been in [0, 1]"),
    "a pointer as the result": Case((ZERO, *EACH), (mov64_reg(0, 3), X), EACCES,
        "R0 not a scalar value"),
    "no result": Case(BELOW, (X,), EACCES, "R0 not a scalar value"),
    "the stack as the result": Case(BELOW, (mov64_reg(0, 2), X), EINVAL,
        "cannot return stack pointer to the caller"),
    "a function that is not static": Case(BELOW, GO_ON, EINVAL, "callback function not static",
        is_static=False),
    "a number for a function": Case(
        (*CALLED, mov64_imm(1, 1), mov64_imm(2, 0), mov64_imm(3, 0), mov64_imm(4, 0),
         call_helper(Helper.LOOP), X), GO_ON, EACCES, "R2 type=scalar expected=func"),
    "a moved function": Case(
        (*_times(1), *CALLED, alu64_imm(op.ADD, 2, 8), mov64_imm(3, 0), mov64_imm(4, 0),
         call_helper(Helper.LOOP), X), GO_ON, EACCES,
        "dereference of modified func ptr R2 off=8 disallowed"),
    "the program's context for a stack": Case(
        (mov64_reg(3, 1), *_times(1), *CALLED, mov64_imm(4, 0), call_helper(Helper.LOOP), X),
        GO_ON, EACCES, "R3 type=ctx expected=fp"),
    "the third argument of a loop": Case(BELOW, (mov64_reg(1, 3), *GO_ON), EACCES, "R3 !read_ok"),
    "a key cannot be written": Case((ZERO, *EACH), (st_mem(W, 2, 0, 0), *GO_ON), EACCES,
        "write to change key R2 not allowed"),
    "behind a key": Case((ZERO, *EACH), (ldx_mem(DW, 1, 2, 0), *GO_ON), EACCES,
        "R2 min value is outside of the allowed memory range"),
    "behind an element": Case((ZERO, *EACH), (ldx_mem(DW, 1, 3, 8), *GO_ON), EACCES,
        "R3 min value is outside of the allowed memory range"),
    "a function that calls itself through a loop": Case(
        _loop(_times(1), ZERO),
        (*_times(1), *ld_imm64(2, op.PSEUDO_FUNC, -2), mov64_imm(3, 0), mov64_imm(4, 0),
         call_helper(Helper.LOOP), *GO_ON), E2BIG,
        "the call stack of 9 frames is too deep"),
    "stacks that do not fit together": Case(
        _loop(_times(1), ZERO, st_mem(DW, 10, -256, 0)), (st_mem(DW, 10, -264, 0), *GO_ON), EACCES,
        "combined stack size of 2 calls is 528. Too large"),
    "an endless function": Case(BELOW, (jump(-1), X), EINVAL, "unreachable insn 10"),
}
# fmt: on
"""By what they show."""
