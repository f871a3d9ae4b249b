"""What the verifier accepts: joins, loops, calls, lookups, and every loader that we make."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    INSN_SIZE,
    Insn,
    alu64_imm,
    call_helper,
    encode_insns,
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
from bpfseal.bpf.uapi import Helper, MapType, ProgFlag, ProgType
from bpfseal.errors import KernelError
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.profile import PROFILES
from bpfseal.kernel.protocol import MapCreate, ProgLoad
from bpfseal.loader import generate
from bpfseal.object import read_object
from bpfseal.scheme import SCHEMES

W, DW, B = op.W, op.DW, op.B
EXIT = exit_insn()
R0 = mov64_imm(0, 0)
EXAMPLE = Path(__file__).parents[4] / "examples" / "exectrace.bpf.o"


def kernel_with_map(
    map_type: MapType = MapType.ARRAY, value_size: int = 64, max_entries: int = 1
) -> ModelKernel:
    kernel = ModelKernel()
    kernel.map_create(MapCreate(map_type, "values", 4, value_size, max_entries))
    return kernel


def request(insns: list[Insn], *, license_text: str = "GPL", log_level: int = 0) -> ProgLoad:
    return ProgLoad(
        ProgType.SYSCALL,
        "test",
        encode_insns(insns),
        license_text,
        flags=ProgFlag.SLEEPABLE,
        fd_array=(3,),
        log_level=log_level,
    )


def run(*insns: Insn, kernel: ModelKernel | None = None, ctx: bytes = bytes(64)) -> int:
    """Load and run a program; return what it returns."""
    loaded = kernel or kernel_with_map()
    return loaded.prog_run(loaded.prog_load(request(list(insns))), ctx).retval


def refusal_of(*insns: Insn, kernel: ModelKernel | None = None) -> tuple[str, str]:
    with pytest.raises(KernelError) as refused:
        (kernel or kernel_with_map()).prog_load(request(list(insns)))
    return refused.value.errno_name, refused.value.log.splitlines()[-1]


def test_a_bounded_loop_is_followed_to_its_end() -> None:
    loop = (alu64_imm(op.ADD, 0, 3), alu64_imm(op.SUB, 2, 1), jmp_imm(op.JNE, 2, 0, -3))
    assert run(R0, mov64_imm(2, 100), *loop, EXIT) == 300


def test_may_goto_bounds_a_loop_that_nothing_else_does() -> None:
    may_goto = Insn(op.JMP | op.JCOND, 0, 0, 2)
    counted = alu64_imm(op.ADD, 0, 1)
    assert run(R0, may_goto, counted, jump(-3), EXIT) > 0


def test_a_loop_on_a_value_that_is_not_known_is_too_much_to_follow() -> None:
    kernel = ModelKernel(profile=replace(PROFILES["kfunc"], max_insns=5000))
    endless = (ldx_mem(W, 2, 1, 0), alu64_imm(op.ADD, 0, 1), jmp_imm(op.JNE, 2, 0, -3))
    assert refusal_of(R0, *endless, EXIT, kernel=kernel) == (
        "E2BIG",
        "BPF program is too large. Processed 5001 insn",
    )


def test_paths_that_meet_in_the_same_state_are_followed_once() -> None:
    diamond = (ldx_mem(W, 2, 1, 0), jmp_imm(op.JEQ, 2, 0, 1), mov64_imm(3, 1), mov64_imm(3, 2))
    assert run(R0, *diamond * 30, EXIT) == 0  # 2 to the 30 paths otherwise


def test_a_condition_that_is_known_closes_the_other_way() -> None:
    wild = ldx_mem(W, 0, 2, 0)  # r2 is a number, so this insn must never be reached
    assert run(mov64_imm(2, 5), R0, jmp_imm(op.JGT, 2, 3, 1), wild, EXIT) == 0


def test_what_a_copy_is_tested_for_holds_for_the_number_itself() -> None:
    insns = [
        *ld_imm64(1, op.PSEUDO_MAP_IDX_VALUE, 0),
        ldx_mem(W, 2, 1, 0),
        mov64_reg(3, 2),
        R0,
        jmp_imm(op.JGT, 3, 60, 2),
        Insn(op.ALU64 | op.ADD | op.X, 1, 2),
        ldx_mem(B, 0, 1, 0),
        EXIT,
    ]
    assert run(*insns) == 0


def test_a_spilled_number_keeps_its_bounds() -> None:
    insns = [
        *ld_imm64(1, op.PSEUDO_MAP_IDX_VALUE, 0),
        ldx_mem(W, 2, 1, 0),
        alu64_imm(op.AND, 2, 31),
        stx_mem(DW, 10, 2, -8),
        ldx_mem(DW, 3, 10, -8),
        Insn(op.ALU64 | op.ADD | op.X, 1, 3),
        ldx_mem(W, 0, 1, 0),
        EXIT,
    ]
    assert run(*insns) == 0


def test_a_function_may_use_its_callers_stack() -> None:
    insns = [
        mov64_reg(1, 10),
        alu64_imm(op.ADD, 1, -8),
        Insn(op.JMP | op.CALL, 0, op.PSEUDO_CALL, 0, 2),
        ldx_mem(DW, 0, 10, -8),
        EXIT,
        st_mem(DW, 1, 0, 42),
        R0,
        EXIT,
    ]
    assert run(*insns) == 42


LOOKUP = [
    *ld_imm64(1, op.PSEUDO_MAP_IDX, 0),
    mov64_reg(2, 10),
    alu64_imm(op.ADD, 2, -4),
    call_helper(Helper.MAP_LOOKUP_ELEM),
]


def test_a_lookup_is_used_once_it_is_known_not_to_be_null() -> None:
    kernel = kernel_with_map(max_entries=4, value_size=8)
    kernel.map_update(3, (2).to_bytes(4, "little"), b"\7" + bytes(7))
    index = [ldx_mem(W, 3, 1, 0), stx_mem(W, 10, 3, -4)]
    tested = [jmp_imm(op.JNE, 0, 0, 2), mov64_imm(0, -1), EXIT, ldx_mem(B, 0, 0, 0), EXIT]
    for key, expected in ((2, 7), (3, 0), (4, -1)):
        ctx = key.to_bytes(4, "little") + bytes(60)
        assert run(*index, *LOOKUP, *tested, kernel=kernel, ctx=ctx) == expected


def test_a_lookup_of_an_index_that_an_array_has_is_never_null() -> None:
    kernel = kernel_with_map(max_entries=4, value_size=8)
    known = [mov64_reg(2, 10), alu64_imm(op.ADD, 2, -8), call_helper(Helper.MAP_LOOKUP_ELEM)]
    rest = [*LOOKUP[:2], *known, ldx_mem(W, 0, 0, 0), EXIT]
    assert run(st_mem(W, 10, -8, 3), *rest, kernel=kernel) == 0
    name, reason = refusal_of(st_mem(W, 10, -8, 4), *rest, kernel=kernel)
    assert (name, reason) == ("EACCES", "R0 invalid mem access 'map_value_or_null'")


def test_a_map_that_programs_of_the_model_cannot_read_is_refused_by_name() -> None:
    kernel = kernel_with_map(MapType.LRU_HASH)
    name, reason = refusal_of(st_mem(W, 10, -4, 0), *LOOKUP, R0, EXIT, kernel=kernel)
    assert (name, "LRU_HASH" in reason) == ("ENOTSUPP", True)


def test_a_program_of_another_licence_may_not_call_gpl_helpers() -> None:
    insns = [
        mov64_reg(1, 10),
        alu64_imm(op.ADD, 1, -8),
        mov64_imm(2, 8),
        mov64_imm(3, 0),
        call_helper(Helper.PROBE_READ_KERNEL),
        R0,
        EXIT,
    ]
    kernel = kernel_with_map()
    kernel.prog_load(request(insns))
    with pytest.raises(KernelError, match="GPL-restricted"):
        kernel.prog_load(request(insns, license_text="Proprietary"))


def test_registers_compared_with_each_other_bound_each_other() -> None:
    insns = [
        *ld_imm64(4, op.PSEUDO_MAP_IDX_VALUE, 0),
        ldx_mem(W, 2, 1, 0),
        mov64_imm(3, 8),
        R0,
        jmp_reg(op.JGE, 2, 3, 2),
        Insn(op.ALU64 | op.ADD | op.X, 4, 2),
        ldx_mem(W, 0, 4, 0),
        EXIT,
    ]
    assert run(*insns) == 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_of_the_example_is_accepted_with_few_insns_seen_twice(scheme: str) -> None:
    loader = generate(read_object(EXAMPLE.read_bytes(), EXAMPLE.name), scheme)
    limit = 2 * (len(loader.insns) // INSN_SIZE)
    kernel = ModelKernel(profile=replace(PROFILES["kfunc"], max_insns=limit))
    fd = kernel.map_create(MapCreate(MapType.ARRAY, "metadata", 4, len(loader.metadata), 1))
    btf = kernel.btf_load(loader.btf) if loader.btf else 0
    kernel.prog_load(
        ProgLoad(
            ProgType.SYSCALL,
            "loader",
            loader.insns,
            "Dual BSD/GPL",
            flags=ProgFlag.SLEEPABLE,
            fd_array=(fd,),
            btf_fd=btf,
        )
    )


def test_the_field_excl_is_read_where_the_kernel_has_it() -> None:
    read = [*ld_imm64(1, op.PSEUDO_MAP_IDX, 0), ldx_mem(W, 0, 1, 32), EXIT]
    with_it, without = (ModelKernel(profile=PROFILES[name]) for name in ("6.18-unverified", "7.3"))
    for kernel in (with_it, without):
        kernel.map_create(MapCreate(MapType.ARRAY, "values", 4, 8, 1))
    assert run(*read, kernel=with_it) == 0
    assert refusal_of(*read, kernel=without) == (
        "EACCES",
        "cannot access ptr member ops with moff 32 in struct bpf_map with off 32 size 4",
    )


def test_the_log_keeps_the_path_that_failed() -> None:
    insns = [
        mov64_imm(2, 7),
        stx_mem(W, 10, 2, -8),
        ldx_mem(W, 3, 1, 0),
        jmp_imm(op.JEQ, 3, 0, 1),
        mov64_imm(4, 1),
        R0,
        mov64_reg(0, 5),
        EXIT,
    ]
    with pytest.raises(KernelError) as refused:
        kernel_with_map().prog_load(request(insns, log_level=1))
    assert refused.value.log.splitlines() == [
        "0: R1=ctx() R10=fp0",
        "0: (b7) r2 = 7                        ; R2=7",
        "1: (63) *(u32 *)(r10 -8) = r2         ; R2=7 R10=fp0 fp-8=????7",
        "2: (61) r3 = *(u32 *)(r1 +0)          ; R1=ctx()"
        " R3=scalar(smin=0,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))",
        "3: (15) if r3 == 0x0 goto pc+1        ;"
        " R3=scalar(smin=umin=umin32=1,smax=umax=0xffffffff,var_off=(0x0; 0xffffffff))",
        "4: (b7) r4 = 1                        ; R4=1",
        "5: (b7) r0 = 0                        ; R0=0",
        "6: (bf) r0 = r5",
        "R5 !read_ok",
        "processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 0"
        " peak_states 0 mark_read 0",
    ]


def test_at_level_0_the_log_is_the_reason_alone() -> None:
    assert refusal_of(mov64_reg(0, 5), EXIT) == ("EACCES", "R5 !read_ok")


UNREACHED = [R0, jmp_imm(op.JEQ, 0, 0, 1), Insn(op.JMP | op.EXIT, 1), EXIT]
"""The third insn uses a reserved field, and no path leads there."""


@pytest.mark.parametrize("release", ["6.12", "6.17", "6.18", "6.19", "7.0"])
def test_up_to_7_0_fields_of_an_insn_that_no_path_leads_to_do_not_count(release: str) -> None:
    kernel = ModelKernel(profile=PROFILES[release])
    plain = replace(request(UNREACHED), fd_array=())
    assert kernel.prog_run(kernel.prog_load(plain), b"").retval == 0


@pytest.mark.parametrize("release", ["7.1", "7.2", "7.3", "kfunc"])
def test_from_7_1_on_they_do(release: str) -> None:
    with pytest.raises(KernelError, match="BPF_EXIT uses reserved fields"):
        ModelKernel(profile=PROFILES[release]).prog_load(replace(request(UNREACHED), fd_array=()))
