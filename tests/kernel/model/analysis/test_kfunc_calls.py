"""Arguments of the kfunc: the map, the memory with its length, and the argument nobody passes."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    Insn,
    alu64_imm,
    encode_insns,
    exit_insn,
    ld_imm64,
    mov64_imm,
    mov64_reg,
    st_mem,
)
from bpfseal.bpf.uapi import MapType, ProgFlag, ProgType
from bpfseal.btf.kinds import Kind
from bpfseal.errors import KernelError
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.analysis import analyse_program
from bpfseal.kernel.model.kernel_btf import SyntheticBtf, SyntheticSymbols
from bpfseal.kernel.model.map_rules import MapAttributes
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.profile import KFUNC_SERIES
from bpfseal.kernel.model.program import MapReference, ModelProgram, ProgAttributes
from bpfseal.kernel.model.rights import Rights
from bpfseal.kernel.model.state import KernelState
from bpfseal.kernel.protocol import MapCreate, ProgLoad
from bpfseal.loader.checks import LOADER_BTF, VERIFY_KFUNC, VERIFY_KFUNC_ID

MAP = tuple(ld_imm64(1, op.PSEUDO_MAP_IDX, 0))
CALL = Insn(op.JMP | op.CALL, 0, op.PSEUDO_KFUNC_CALL_PROG_BTF, 0, VERIFY_KFUNC_ID)
FILL = tuple(st_mem(op.DW, 10, -8 * slot, 0) for slot in range(1, 5))
PAIR = "arg#1 arg#2 memory, len pair leads to invalid memory access"


def hash_at(off: int) -> Sequence[Insn]:
    return mov64_reg(2, 10), alu64_imm(op.ADD, 2, off)


def size(number: int) -> Insn:
    return mov64_imm(3, number)


def load(*insns: Insn) -> None:
    kernel = ModelKernel()
    fd = kernel.map_create(MapCreate(MapType.ARRAY, "metadata", 4, 8, 1))
    kernel.prog_load(
        ProgLoad(
            ProgType.SYSCALL,
            "loader",
            encode_insns([*insns, CALL, exit_insn()]),
            "GPL",
            flags=ProgFlag.SLEEPABLE,
            fd_array=(fd,),
            btf_fd=kernel.btf_load(LOADER_BTF),
        )
    )


def refusal_of(*insns: Insn) -> tuple[str, str]:
    with pytest.raises(KernelError) as refused:
        load(*insns)
    return refused.value.errno_name, refused.value.log.splitlines()[-1]


def test_map_memory_and_length_are_taken() -> None:
    load(*MAP, *FILL, *hash_at(-32), size(32))


def test_the_length_is_a_matter_of_the_run_as_long_as_the_memory_is_there() -> None:
    load(*MAP, *FILL, *hash_at(-32), size(16))


def test_memory_shorter_than_its_length_is_refused() -> None:
    assert refusal_of(*MAP, *FILL, *hash_at(-16), size(32)) == ("EINVAL", PAIR)
    assert refusal_of(*MAP, *FILL, *hash_at(-520), size(8)) == ("EACCES", PAIR)


def test_a_negative_length_is_refused() -> None:
    assert refusal_of(*MAP, *FILL, *hash_at(-32), size(-1)) == ("EACCES", PAIR)


def test_a_length_that_is_a_pointer_is_refused() -> None:
    assert refusal_of(*MAP, *FILL, *hash_at(-32), mov64_reg(3, 10))[0] in ("EACCES", "EINVAL")


def test_no_map_no_call() -> None:
    stack_for_map = (mov64_reg(1, 10), *FILL, *hash_at(-32), size(32))
    assert refusal_of(*stack_for_map)[0] == "EINVAL"
    null_for_map = (mov64_imm(1, 0), *FILL, *hash_at(-32), size(32))
    assert refusal_of(*null_for_map) == ("EACCES", "Possibly NULL pointer passed to trusted arg0")


def test_every_argument_must_have_a_value() -> None:
    assert refusal_of(*MAP, *FILL, *hash_at(-32)) == ("EACCES", PAIR)
    assert refusal_of(*MAP, *FILL, size(32)) == ("EACCES", "R2 !read_ok")


def test_the_implicit_argument_is_not_looked_at() -> None:
    load(*MAP, *FILL, *hash_at(-32), size(32), mov64_imm(4, 99))


def judged_without_perfmon(*insns: Insn) -> None:
    """Follow a program as one that a process without CAP_PERFMON loads."""
    btf = SyntheticBtf((VERIFY_KFUNC,))
    state = KernelState(KFUNC_SERIES, btf, SyntheticSymbols(), ())
    used = ModelMap(MapAttributes(MapType.ARRAY, 4, 8, 1), state.memory)
    kernel_id = btf.known(VERIFY_KFUNC, Kind.FUNC) or 0
    call = CALL._replace(src=op.PSEUDO_KFUNC_CALL, imm=kernel_id)
    program = ModelProgram(
        ProgAttributes(ProgType.SYSCALL, "p", b"", "GPL"), b"", (*insns, call, exit_insn())
    )
    program.references.append(MapReference(0, used, None))
    state.rights = Rights(perfmon=False)
    analyse_program(state, program, is_gpl=True)


def test_without_perfmon_every_byte_of_the_memory_must_be_written_before() -> None:
    judged_without_perfmon(*MAP, *FILL, *hash_at(-32), size(32))
    with pytest.raises(KernelError) as refused:
        judged_without_perfmon(*MAP, *FILL[:3], *hash_at(-32), size(32))
    assert refused.value.errno_name == "EACCES"
    assert "invalid read from stack R2 off -32+0 size 32" in refused.value.log


def test_with_perfmon_it_need_not_be() -> None:
    load(*MAP, *hash_at(-32), size(32))
