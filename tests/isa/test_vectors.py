"""Every vector, in the model and in the running kernel."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn, exit_insn, ld_imm64, mov64_imm, mov64_reg, stx_mem
from bpfseal.kernel.linux.kernel import LinuxKernel
from bpfseal.kernel.protocol import Kernel

from .compare import judge_and_run, model_kernel
from .vectors import ARITHMETIC, PROGRAMS, Vector

_RESULT_AT = 16
_CTX = 9


def check(kernel: Kernel, vector: Vector) -> None:
    """Run a vector with r0 kept in the context, where all its 64 bits can be read."""
    keeps = [mov64_reg(_CTX, 1)]
    main, functions = _split(vector.insns)
    program = [*keeps, *main, stx_mem(op.DW, _CTX, 0, _RESULT_AT), mov64_imm(0, 0), exit_insn()]
    verdict, outcome = judge_and_run(kernel, [*program, *functions], vector.ctx + bytes(8))
    assert outcome is not None, (vector.rule, verdict)
    after = vector.ctx if vector.after is None else vector.after
    assert outcome.ctx[_RESULT_AT:] == vector.r0.to_bytes(8, "little"), vector.rule
    assert outcome.ctx[:_RESULT_AT] == after, vector.rule


def _split(insns: Sequence[Insn]) -> tuple[list[Insn], list[Insn]]:
    """Take the function behind a main program's exit apart, and let calls reach it again."""
    end = next((i for i, insn in enumerate(insns) if insn == exit_insn()), None)
    if end is None:
        return list(insns), []
    moved = [
        insn._replace(imm=insn.imm + 2) if insn.src == op.PSEUDO_CALL else insn
        for insn in insns[:end]
    ]
    return moved, [*insns[end + 1 :], exit_insn()]


def arithmetic(rule: str, insn: Insn, r0: int, r2: int, expected: int) -> Vector:
    before = [*ld_imm64(0, 0, r0, r0 >> 32), *ld_imm64(2, 0, r2, r2 >> 32)]
    return Vector(rule, [*before, insn], expected)


_REFUSED = "4.1 div by zero imm gives 0"
"""A verifier refuses it; `test_alu` runs it without one."""

VECTORS = [*(arithmetic(*row) for row in ARITHMETIC if row[0] != _REFUSED), *PROGRAMS]


def _rules() -> list[str]:
    return [vector.rule for vector in VECTORS]


def test_every_vector_names_its_section_and_is_there_once() -> None:
    assert len(set(_rules())) == len(VECTORS)
    assert all(rule[0] in "45" or rule.startswith("linux") for rule in _rules())


@pytest.mark.parametrize("vector", VECTORS, ids=_rules())
def test_the_model_follows_the_vector(vector: Vector) -> None:
    check(model_kernel(), vector)


def test_the_running_kernel_follows_every_vector(linux: LinuxKernel) -> None:
    for vector in VECTORS:
        check(linux, vector)
