"""What the verifier checks of func_info and line_info against the program and its BTF.

Source: kernel/bpf/verifier.c ``check_btf_func_early``, ``check_btf_func``, ``check_btf_line``; from
7.2 on in kernel/bpf/check_btf.c.

Example:
    >>> read_func_info(program)
    >>> check_btf_info(program, function_starts(program.insns))
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import EINVAL
from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn
from bpfseal.bpf.uapi import Helper
from bpfseal.btf.btf import Btf
from bpfseal.btf.kinds import ENUMS, Kind
from bpfseal.errors import InputError, KernelError
from bpfseal.kernel.model.program import ModelProgram
from bpfseal.kernel.model.records import FUNC_INFO, LINE_INFO
from bpfseal.kernel.model.refusal import refusal

_SMALL_INT_BYTES: Final = frozenset({1, 2, 4, 8})
_PACKET_LOADS: Final = frozenset({op.ABS, op.IND})


def _refuse(function: str, log: str) -> KernelError:
    return refusal(EINVAL, f"kernel/bpf/verifier.c {function}", log, log=log)


def read_func_info(program: ModelProgram) -> None:
    """Read func_info and check each record by itself (``check_btf_func_early``).

    Raises:
        KernelError: EINVAL, and what reading a record gives.
    """
    function = "check_btf_func_early"
    found: list[tuple[int, int]] = []
    for insn, type_id in program.attributes.func_info.rows(FUNC_INFO):
        if not found and insn:
            raise _refuse(function, f"nonzero insn_off {insn} for the first func info record")
        if found and insn <= found[-1][0]:
            log = (
                f"same or smaller insn offset ({insn}) than previous func info record"
                f" ({found[-1][0]})"
            )
            raise _refuse(function, log)
        if program.btf is None or program.btf.function_name(type_id) is None:
            raise _refuse(function, f"invalid type id {type_id} in func info")
        found.append((insn, type_id))
    program.func_info = tuple(found)


def check_btf_info(program: ModelProgram, functions: Sequence[int]) -> None:
    """Check func_info and line_info against the functions of a program.

    Args:
        program: the program, with its func_info read.
        functions: the first insn of each function.

    Raises:
        KernelError: EINVAL, and what reading a record gives.
    """
    given = program.attributes
    if given.func_info.count:
        _check_func_info(program, functions)
    else:
        _check_unusual(program, functions)
    if given.line_info.count:
        _read_line_info(program, functions)


def _check_unusual(program: ModelProgram, functions: Sequence[int]) -> None:
    """Refuse what functions do only if BTF says what they return (``check_abnormal_return``)."""
    for start, end in _spans(program, functions)[1:]:
        what = _unusual(program.insns[start:end])
        if what:
            raise _refuse("check_abnormal_return", f"{what} is not allowed in subprogs without BTF")


def _check_func_info(program: ModelProgram, functions: Sequence[int]) -> None:
    function = "check_btf_func"
    if len(program.func_info) != len(functions):
        log = "number of funcs in func_info doesn't match number of subprogs"
        raise _refuse(function, log)
    for number, (insn, type_id) in enumerate(program.func_info):
        start, end = _spans(program, functions)[number]
        if insn != start:
            log = "func_info BTF section doesn't match subprog layout in BPF program"
            raise _refuse(function, log)
        what = _unusual(program.insns[start:end]) if number else ""
        if what and program.btf is not None and not _returns_number(program.btf.btf, type_id):
            log = f"{what} is only allowed in functions that return 'int'."
            raise _refuse(function, log)


def _spans(program: ModelProgram, functions: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(functions, [*functions[1:], len(program.insns)], strict=True))


def _unusual(insns: Sequence[Insn]) -> str:
    """Return what the kernel calls the thing that only some functions may do."""
    if any(insn.insn_class == op.LD and insn.code & 0xE0 in _PACKET_LOADS for insn in insns):
        return "LD_ABS"
    calls = (insn for insn in insns if insn.code == op.JMP | op.CALL and not insn.src)
    return "tail_call" if any(insn.imm == Helper.TAIL_CALL for insn in calls) else ""


def _returns_number(btf: Btf, func_id: int) -> bool:
    """Whether a FUNC returns an int of a usual size or an enum."""
    try:
        returned = btf.skip_modifiers(btf.type_by_id(btf.type_by_id(func_id).third).third)
    except InputError:
        return False
    is_int = returned.kind is Kind.INT and returned.third in _SMALL_INT_BYTES
    return is_int or returned.kind in ENUMS


def _read_line_info(program: ModelProgram, functions: Sequence[int]) -> None:
    function = "check_btf_line"
    insns, strings = program.insns, len(program.btf.btf.strings) if program.btf else 0
    found: list[tuple[int, int, int, int]] = []
    reached, previous = 0, 0
    for number, (insn, file, line, place) in enumerate(
        program.attributes.line_info.rows(LINE_INFO)
    ):
        if (number and insn <= previous) or insn >= len(insns):
            log = (
                f"Invalid line_info[{number}].insn_off:{insn}"
                f" (prev_offset:{previous} prog->len:{len(insns)})"
            )
            raise _refuse(function, log)
        if not insns[insn].code:
            raise _refuse(function, f"Invalid insn code at line_info[{number}].insn_off")
        if file >= strings or line >= strings:
            raise _refuse(function, f"Invalid line_info[{number}].line_off or .file_name_off")
        if reached < len(functions):
            if insn == functions[reached]:
                reached += 1
            elif functions[reached] < insn:
                raise _refuse(function, f"missing bpf_line_info for func#{reached}")
        previous = insn
        found.append((insn, file, line, place))
    if reached != len(functions):
        missing = len(functions) - reached
        log = f"missing bpf_line_info for {missing} funcs starting from func#{reached}"
        raise _refuse(function, log)
    program.line_info = tuple(found)
