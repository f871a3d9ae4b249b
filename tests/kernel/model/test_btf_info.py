"""func_info and line_info against the functions of a program."""

from __future__ import annotations

from errno import E2BIG, EFAULT, EINVAL

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn, call_helper, exit_insn, jump, ld_imm64, mov64_imm
from bpfseal.bpf.uapi import Helper
from bpfseal.kernel.model.records import Records
from support.btf_writer import BtfWriter

from .inner import Inner, records

TWO_FUNCTIONS = [
    Insn(op.JMP | op.CALL, 0, op.PSEUDO_CALL, 0, 1),
    exit_insn(),
    mov64_imm(0, 0),
    exit_insn(),
]


def inner(insns: list[Insn] | None = None, **changes: object) -> Inner:
    """A program of two functions, the second of which returns an int."""
    btf = BtfWriter()
    int_id = btf.add_int("int", 4, signed=True)
    leaf = btf.add_func("leaf", btf.add_func_proto(int_id, []))
    btf.string("a.c")
    given = Inner(insns or TWO_FUNCTIONS, btf)
    given.changes = {"func_info": records((0, given.main), (2, leaf)), **changes}
    return given


LEAF = 3
MAIN = 5


def test_both_functions_are_known() -> None:
    assert inner().load().func_info == ((0, MAIN), (2, LEAF))


@pytest.mark.parametrize(
    ("rows", "log"),
    [
        (records((1, MAIN)), "nonzero insn_off 1 for the first func info record"),
        (
            records((0, MAIN), (0, LEAF)),
            "same or smaller insn offset (0) than previous func info record (0)",
        ),
        (records((0, 1)), "invalid type id 1 in func info"),
        (records((0, 99)), "invalid type id 99 in func info"),
        (records((0, MAIN)), "number of funcs in func_info doesn't match number of subprogs"),
        (
            records((0, MAIN), (1, LEAF)),
            "func_info BTF section doesn't match subprog layout in BPF program",
        ),
        (Records(1, 4, bytes(4)), "invalid func info rec size 4"),
    ],
)
def test_func_info_that_is_einval(rows: Records, log: str) -> None:
    error = inner(func_info=rows).refusal()
    assert (error.errno, error.log) == (EINVAL, log)


def test_records_that_are_longer_than_the_kernel_knows_end_with_zeros() -> None:
    rows = b"".join(number.to_bytes(4, "little") for number in (0, MAIN, 0, 2, LEAF, 0))
    assert inner(func_info=Records(2, 12, rows)).load().func_info
    assert inner(func_info=Records(2, 12, rows[:-1] + b"\1")).refusal().errno == E2BIG
    assert inner(func_info=Records(3, 12, rows)).refusal().errno == EFAULT


def test_the_lines_of_all_functions() -> None:
    program = inner(line_info=records((0, 1, 1, 5 << 10), (2, 1, 1, 9 << 10))).load()
    assert [line[0] for line in program.line_info] == [0, 2]


@pytest.mark.parametrize(
    ("rows", "log"),
    [
        (records((2, 1, 1, 0)), "missing bpf_line_info for func#0"),
        (records((0, 1, 1, 0)), "missing bpf_line_info for 1 funcs starting from func#1"),
        (
            records((0, 1, 1, 0), (0, 1, 1, 0)),
            "Invalid line_info[1].insn_off:0 (prev_offset:0 prog->len:4)",
        ),
        (records((4, 1, 1, 0)), "Invalid line_info[0].insn_off:4 (prev_offset:0 prog->len:4)"),
        (records((0, 9999, 1, 0)), "Invalid line_info[0].line_off or .file_name_off"),
        (records((0, 1, 9999, 0)), "Invalid line_info[0].line_off or .file_name_off"),
    ],
)
def test_line_info_that_is_einval(rows: Records, log: str) -> None:
    error = inner(line_info=rows).refusal()
    assert (error.errno, error.log) == (EINVAL, log)


def test_no_line_begins_in_the_middle_of_an_insn() -> None:
    given = Inner([*ld_imm64(0, 0, 0), exit_insn()])
    given.changes = {"line_info": records((0, 0, 0, 0), (1, 0, 0, 0))}
    assert given.refusal().log == "Invalid insn code at line_info[1].insn_off"


TAIL_CALL = [
    Insn(op.JMP | op.CALL, 0, op.PSEUDO_CALL, 0, 1),
    exit_insn(),
    call_helper(Helper.TAIL_CALL),
    exit_insn(),
]


def test_a_function_that_tail_calls_returns_a_number_and_says_so() -> None:
    assert inner(TAIL_CALL).load()
    error = inner(TAIL_CALL, func_info=records((0, MAIN), (2, MAIN))).refusal()
    assert error.log == "tail_call is only allowed in functions that return 'int'."
    error = inner(TAIL_CALL, func_info=records()).refusal()
    assert error.log == "tail_call is not allowed in subprogs without BTF"


@pytest.mark.parametrize(
    ("insns", "log"),
    [
        ([jump(1), exit_insn()], "jump out of range from insn 0 to 2"),
        ([mov64_imm(0, 0)], "last insn is not an exit or jmp"),
        ([jump(1), mov64_imm(0, 0), exit_insn()], "unreachable insn 1"),
        (
            [Insn(op.JMP | op.CALL, 0, op.PSEUDO_CALL, 0, 9), exit_insn()],
            "call to invalid destination",
        ),
        ([jump(2), *TWO_FUNCTIONS], "jump out of range from insn 0 to 3"),
    ],
)
def test_the_shape_of_a_program(insns: list[Insn], log: str) -> None:
    error = inner(insns, func_info=records()).refusal()
    assert (error.errno, error.log) == (EINVAL, log)
