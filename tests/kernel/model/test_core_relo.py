"""CO-RE records of a program: when a kernel applies them, and what it answers."""

from __future__ import annotations

from errno import E2BIG, EFAULT, EINVAL

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn, encode_insns, exit_insn, jmp_imm, ldx_mem, mov64_imm
from bpfseal.btf.core import RelocationKind
from bpfseal.kernel.model.program import insns_digest
from bpfseal.kernel.model.records import Records
from support.btf_writer import BtfWriter

from .inner import Inner, records

END = [mov64_imm(0, 0), exit_insn()]


def task(*fields: str) -> BtfWriter:
    btf = BtfWriter()
    number = btf.add_int("u32", 4)
    btf.add_struct("task", 4 * len(fields), [(f, number, 32 * n) for n, f in enumerate(fields)])
    return btf


TASK = 2
"""The type id of the struct."""


def inner(*insns: Insn, kernel: BtfWriter | None, kind: int = 0, **changes: object) -> Inner:
    """A program whose first insn has a record of the field ``pid``."""
    btf = task("pid")
    access = btf.string("0:0")
    given = {"core_relos": records((0, TASK, access, kind)), **changes}
    return Inner([*insns, *END], btf, kernel_btf=kernel, changes=given)


def test_the_insns_are_changed_before_anything_looks_at_them() -> None:
    program = inner(mov64_imm(1, 0), kernel=task("flags", "pid")).load()
    assert program.insns[0] == mov64_imm(1, 4)
    assert program.digest == insns_digest(program.insns)
    assert program.digest != insns_digest([mov64_imm(1, 0), *END])


def test_without_types_of_a_kernel_the_insns_stay_and_that_is_said() -> None:
    given = inner(mov64_imm(1, 0), kernel=None)
    state = given.state()
    assert given.load(state).insns[0] == mov64_imm(1, 0)
    assert state.btf.assumed == ["field task.pid"]


def test_what_the_kernel_lacks_is_refused_where_the_program_gets_there() -> None:
    error = inner(mov64_imm(1, 0), kernel=task("flags")).refusal()
    assert error.errno == EINVAL
    assert error.log == "invalid func unknown#195896080"
    assert "byte_off of struct task, access string '0:0', insn 0" in error.rule


def test_what_the_kernel_lacks_is_no_matter_behind_a_question_for_it() -> None:
    """``if (bpf_core_field_exists(t->pid)) x = t->pid;``"""
    given = inner(
        mov64_imm(1, 1),
        jmp_imm(op.JEQ, 1, 0, 1),
        mov64_imm(2, 0),
        kernel=task("flags"),
    )
    access = given.btf.string("0:0")
    exists, offset = RelocationKind.FIELD_EXISTS, RelocationKind.FIELD_BYTE_OFFSET
    rows = records((0, TASK, access, exists), (16, TASK, access, offset))
    given.changes["core_relos"] = rows
    program = given.load()
    assert program.insns[0] == mov64_imm(1, 0)
    assert list(program.poisoned) == [2]


@pytest.mark.parametrize(("profile", "changed"), [("6.18", 0), ("7.2", 0), ("7.3", 4)])
def test_records_without_func_info_count_from_7_3_on(profile: str, changed: int) -> None:
    given = inner(mov64_imm(1, 0), kernel=task("flags", "pid"), func_info=records())
    given.profile = profile
    assert given.load().insns[0] == mov64_imm(1, changed)


@pytest.mark.parametrize(
    ("rows", "errno"),
    [
        (Records(1, 12, bytes(12)), EINVAL),
        (Records(1, 18, bytes(18)), EINVAL),
        (Records(1 << 27, 16, bytes(16)), EINVAL),
        (Records(1, 16, bytes(8)), EFAULT),
        (Records(1, 20, bytes(16) + b"\1\0\0\0"), E2BIG),
        (records((4, TASK, 1, 0)), EINVAL),
        (records((8 * 3, TASK, 1, 0)), EINVAL),
        (records((0, 99, 1, 0)), EINVAL),
        (records((0, TASK, 1 << 20, 0)), EINVAL),
        (records((0, 0, 1, 0)), EINVAL),
    ],
    ids=str,
)
@pytest.mark.parametrize("kernel", [None, task("pid")], ids=["synthetic", "file"])
def test_records_that_are_refused(rows: Records, errno: int, kernel: BtfWriter | None) -> None:
    assert inner(mov64_imm(1, 0), kernel=kernel, core_relos=rows).refusal().errno == errno


def test_the_log_tells_each_step_at_level_2() -> None:
    given = inner(mov64_imm(1, 0), kernel=task("flags", "pid"), log_level=2)
    state = given.state()
    given.load(state)
    assert "patched insn #0 (ALU/ALU64) imm 0 -> 4" in state.verifier_log


def test_at_level_1_only_a_refusal_leaves_a_log() -> None:
    given = inner(mov64_imm(1, 0), kernel=task("flags", "pid"), log_level=1)
    state = given.state()
    given.load(state)
    assert state.verifier_log == ""
    refused = inner(mov64_imm(1, 0), kernel=task("flags"), log_level=1).refusal()
    assert refused.log.splitlines()[-2:] == [
        "prog '': relo #0: substituting insn #0 w/ invalid insn",
        "invalid func unknown#195896080",
    ]


def test_a_load_takes_the_size_that_the_field_has() -> None:
    kernel = BtfWriter()
    kernel.add_struct("task", 16, [("flags", 2, 0), ("pid", 2, 64)])
    kernel.add_int("u64", 8)
    given = inner(mov64_imm(1, 0), ldx_mem(op.W, 2, 10, 0), kernel=kernel)
    access = given.btf.string("0:0")
    given.changes["core_relos"] = records((8, TASK, access, 0))
    error = given.refusal()
    assert error.log == "invalid read from stack R10 off=8 size=8"
    assert encode_insns(given.insns)
