"""Which insns a verifier gets to, as far as constants decide."""

from __future__ import annotations

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    Insn,
    alu32_imm,
    alu64_imm,
    call_helper,
    exit_insn,
    jmp_imm,
    jmp_reg,
    jump,
    ld_imm64,
    ldx_mem,
    mov64_imm,
    mov64_reg,
    st_mem,
    stx_mem,
)
from bpfseal.bpf.uapi import Helper, MapFlag, MapType
from bpfseal.btf.kinds import Linkage
from bpfseal.kernel.model.map_rules import MapAttributes
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.memory import Memory
from bpfseal.kernel.model.program import MapReference
from bpfseal.kernel.model.reachability import reachable

from .inner import Inner, records

NEVER = mov64_imm(3, 99)
"""The insn that is not reached."""

END = [mov64_imm(0, 0), exit_insn()]
FP = 10
CALL = Insn(op.JMP | op.CALL, 0, op.PSEUDO_CALL, 0, 0)


def skipped(*insns: Insn) -> list[int]:
    """Return the insns that are not reached, second slots of ld_imm64 left out."""
    program = Inner(list(insns)).load()
    seconds = {n + 1 for n, insn in enumerate(insns) if insn.is_ld_imm64}
    return sorted(set(range(len(insns))) - reachable(program) - seconds)


@pytest.mark.parametrize(
    "insns",
    [
        [mov64_imm(1, 0), jmp_imm(op.JEQ, 1, 0, 1), NEVER, *END],
        [mov64_imm(1, 5), jmp_imm(op.JSGT, 1, -1, 1), NEVER, *END],
        [*ld_imm64(1, 0, 0, 1), jmp_imm(op.JNE, 1, 0, 1), NEVER, *END],
        [mov64_imm(1, 3), mov64_imm(2, 4), jmp_reg(op.JLT, 1, 2, 1), NEVER, *END],
        [mov64_imm(1, 6), alu64_imm(op.AND, 1, 1), jmp_imm(op.JEQ, 1, 0, 1), NEVER, *END],
        [mov64_imm(1, -1), alu32_imm(op.ADD, 1, 1), jmp_imm(op.JEQ, 1, 0, 1), NEVER, *END],
        [
            st_mem(op.DW, FP, -8, 0),
            ldx_mem(op.DW, 1, FP, -8),
            jmp_imm(op.JEQ, 1, 0, 1),
            NEVER,
            *END,
        ],
        [mov64_imm(6, 0), call_helper(Helper.KTIME_GET_NS), jmp_imm(op.JEQ, 6, 0, 1), NEVER, *END],
        [jmp_imm(op.JNE, 1, 7, 2), jmp_imm(op.JEQ, 1, 7, 1), NEVER, *END],
    ],
    ids=str,
)
def test_a_constant_decides(insns: list[Insn]) -> None:
    assert skipped(*insns) == [insns.index(NEVER)]


@pytest.mark.parametrize(
    "insns",
    [
        [jmp_imm(op.JEQ, 1, 0, 1), NEVER, *END],
        [mov64_imm(1, 0), call_helper(Helper.KTIME_GET_NS), jmp_imm(op.JEQ, 1, 0, 1), NEVER, *END],
        [
            st_mem(op.DW, FP, -8, 0),
            stx_mem(op.W, FP, 1, -4),
            ldx_mem(op.DW, 1, FP, -8),
            jmp_imm(op.JEQ, 1, 0, 1),
            NEVER,
            *END,
        ],
        [
            st_mem(op.DW, FP, -8, 0),
            mov64_reg(2, FP),
            alu64_imm(op.ADD, 2, -8),
            call_helper(Helper.KTIME_GET_NS),
            ldx_mem(op.DW, 1, FP, -8),
            jmp_imm(op.JEQ, 1, 0, 1),
            NEVER,
            *END,
        ],
    ],
    ids=["unknown", "after a call", "overwritten", "given away"],
)
def test_what_is_not_known_decides_nothing(insns: list[Insn]) -> None:
    assert skipped(*insns) == []


def test_a_loop_ends() -> None:
    loop = [mov64_imm(1, 0), alu64_imm(op.ADD, 1, 1), jmp_imm(op.JLT, 1, 1 << 20, -2), *END]
    assert skipped(*loop) == []


def reached_in(linkage: Linkage, *body: Insn) -> set[int]:
    """Return the insns that are not reached when a function is called with 0."""
    insns = [mov64_imm(1, 0), CALL._replace(imm=2), *END, *body]
    given = Inner(insns)
    leaf = given.btf.add_func("leaf", given.main - 1, linkage)
    given.changes["func_info"] = records((0, given.main), (4, leaf))
    return set(range(len(insns))) - reachable(given.load())


BODY = [jmp_imm(op.JEQ, 1, 0, 1), NEVER, mov64_imm(0, 0), exit_insn()]


def test_a_static_function_is_followed_with_its_arguments() -> None:
    assert reached_in(Linkage.STATIC, *BODY) == {5}


def test_a_global_function_is_followed_by_itself() -> None:
    assert reached_in(Linkage.GLOBAL, *BODY) == set()


@pytest.mark.parametrize(
    ("flags", "is_frozen", "rest"),
    [(MapFlag.RDONLY_PROG, True, [4]), (MapFlag.RDONLY_PROG, False, []), (0, True, [])],
)
def test_read_only_data_is_known(flags: int, is_frozen: bool, rest: list[int]) -> None:
    insns = [
        *ld_imm64(1, op.PSEUDO_MAP_VALUE, 0),
        ldx_mem(op.W, 1, 1, 4),
        jmp_imm(op.JEQ, 1, 7, 1),
        NEVER,
        *END,
    ]
    program = Inner([jump(0), *END]).load()
    data = ModelMap(MapAttributes(MapType.ARRAY, 4, 8, 1, flags=flags), Memory())
    data.update(bytes(4), bytes(4) + b"\7\0\0\0", 0)
    data.frozen = is_frozen
    program.insns = tuple(insns)
    program.references = [MapReference(0, data, 0)]
    assert sorted(set(range(len(insns))) - reachable(program) - {1}) == rest
