"""BPF_PROG_LOAD: what it checks besides the rows of test_measured, and in which order."""

from __future__ import annotations

from dataclasses import replace
from errno import E2BIG, EACCES, EBADF, EFAULT, EINVAL, EKEYREJECTED, ENOENT, EPERM, EPROTO
from typing import Any

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    Insn,
    alu64_imm,
    encode_insns,
    exit_insn,
    jmp_imm,
    jump,
    ld_imm64,
    ldx_mem,
    mov64_imm,
    st_mem,
    stx_mem,
)
from bpfseal.bpf.uapi import AttachType, MapFlag, MapType, ProgFlag, ProgType
from bpfseal.btf.kinds import Kind
from bpfseal.errors import KernelError
from bpfseal.kernel.model import ModelKernel
from bpfseal.kernel.model.kernel_btf import SymbolTable, SyntheticBtf, SyntheticSymbols
from bpfseal.kernel.model.lsm import Operation, ProgramFacts
from bpfseal.kernel.model.map_rules import MapAttributes
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.profile import KFUNC_SERIES
from bpfseal.kernel.model.prog_load import prog_load
from bpfseal.kernel.model.program import ProgAttributes
from bpfseal.kernel.model.state import KernelState
from bpfseal.kernel.model.verdict import KeyringKind, Verdict
from bpfseal.kernel.protocol import MapCreate, ProgLoad

from ..support import CTX_SIZE, Steps, sha256, sign, trusting_kernel

END = (mov64_imm(0, 0), exit_insn())
GOOD = Steps()
ATTRIBUTES = MapAttributes(MapType.ARRAY, 4, 8, 1)


def attributes(*insns: Insn, **changes: Any) -> ProgAttributes:
    code = encode_insns([*insns, *END])
    plain = ProgAttributes(ProgType.SYSCALL, "p", code, "GPL", flags=ProgFlag.SLEEPABLE)
    return replace(plain, **changes)


def fresh_state() -> KernelState:
    return KernelState(KFUNC_SERIES, SyntheticBtf(), SyntheticSymbols(), ())


def errno_of(given: ProgAttributes, state: KernelState | None = None) -> int:
    kernel = state or fresh_state()
    try:
        prog_load(kernel, given)
    except KernelError as error:
        return error.errno
    return 0


def test_a_minute_program_loads() -> None:
    assert errno_of(attributes()) == 0


@pytest.mark.parametrize(
    "insns",
    [
        (Insn(0xFF),),
        (jump(100),),
        (jump(-2),),
        (jump(1), *ld_imm64(1, 0, 0)),
        (Insn(op.LD_IMM64, 1, 9), Insn(0)),
        (mov64_imm(12, 0),),
    ],
    ids=["opcode", "far", "before", "second slot", "pseudo source", "r12"],
)
def test_malformed_insns_are_einval(insns: tuple[Insn, ...]) -> None:
    assert errno_of(attributes(*insns)) == EINVAL


def test_a_write_to_the_frame_pointer_is_eacces() -> None:
    assert errno_of(attributes(mov64_imm(10, 0))) == EACCES


def test_a_program_that_runs_off_its_end_is_einval() -> None:
    assert errno_of(attributes(insns=encode_insns([mov64_imm(0, 0)]))) == EINVAL
    assert errno_of(attributes(insns=encode_insns(ld_imm64(0, 0, 0)))) == EINVAL


@pytest.mark.parametrize("insns", [b"", b"\0" * 7], ids=["none", "half"])
def test_no_insns_are_e2big(insns: bytes) -> None:
    assert errno_of(attributes(insns=insns)) == E2BIG


@pytest.mark.parametrize(
    ("insn", "log"),
    [
        (stx_mem(op.W, 10, 1, 0), "invalid write to stack R10 off=0 size=4"),
        (stx_mem(op.DW, 10, 1, 8), "invalid write to stack R10 off=8 size=8"),
        (st_mem(op.W, 10, -516, 0), "invalid write to stack R10 off=-516 size=4"),
        (ldx_mem(op.W, 1, 10, 0), "invalid read from stack R10 off=0 size=4"),
    ],
)
def test_a_stack_slot_outside_the_stack_is_eacces(insn: Insn, log: str) -> None:
    """Loaders of more than 32 programs made by the reference fail so."""
    with pytest.raises(KernelError) as refused:
        prog_load(fresh_state(), attributes(insn))
    assert (refused.value.errno, refused.value.log) == (EACCES, log)


def test_the_ends_of_the_stack_are_inside_it() -> None:
    assert errno_of(attributes(st_mem(op.DW, 10, -512, 0), st_mem(op.B, 10, -1, 0))) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"type": 0},
        {"type": 99},
        {"flags": 1 << 20},
        {"name": "a" * 16},
        {"expected_attach_type": AttachType.XDP},
        {"attach_btf_id": 1},
        {"func_info": ((0, 1),)},
        {"type": ProgType.CGROUP_SOCK_ADDR, "flags": 0},
        {"type": ProgType.TRACING, "flags": 0},
    ],
    ids=str,
)
def test_attributes_that_are_einval(changes: dict[str, Any]) -> None:
    assert errno_of(attributes(**changes)) == EINVAL


def test_maps_are_named_by_fd_or_by_index() -> None:
    def load(source: int, number: int, **changes: Any) -> int:
        state = fresh_state()
        kernel_map = ModelMap(ATTRIBUTES, state.memory)
        assert state.fds.install(kernel_map) == 3
        return errno_of(attributes(*ld_imm64(1, source, number), **changes), state)

    assert load(op.PSEUDO_MAP_FD, 3) == 0
    assert load(op.PSEUDO_MAP_VALUE, 3) == 0
    assert load(op.PSEUDO_MAP_FD, 99) == EBADF
    assert load(op.PSEUDO_MAP_FD, 1) == EINVAL
    assert load(op.PSEUDO_MAP_IDX, 0, fd_array=(3,)) == 0
    assert load(op.PSEUDO_MAP_IDX_VALUE, 0, fd_array=(3,)) == 0
    assert load(op.PSEUDO_MAP_IDX, 0, fd_array=(99,)) == EBADF
    assert load(op.PSEUDO_MAP_IDX, 0) == EPROTO


def test_the_value_offset_must_lie_in_the_value() -> None:
    state = fresh_state()
    state.fds.install(ModelMap(ATTRIBUTES, state.memory))
    for offset, errno in ((7, 0), (8, EINVAL)):
        assert errno_of(attributes(*ld_imm64(1, op.PSEUDO_MAP_VALUE, 3, offset)), state) == errno


def test_a_sleepable_program_cannot_use_every_map() -> None:
    state = fresh_state()
    state.fds.install(
        ModelMap(replace(ATTRIBUTES, type=MapType.PERF_EVENT_ARRAY, value_size=4), state.memory)
    )
    given = attributes(*ld_imm64(1, op.PSEUDO_MAP_FD, 3))
    assert errno_of(given, state) == EINVAL
    assert errno_of(replace(given, type=ProgType.KPROBE, flags=0), state) == 0


def test_a_program_keeps_its_maps_alive() -> None:
    state = fresh_state()
    used = ModelMap(ATTRIBUTES, state.memory)
    fd = state.fds.install(used)
    program = prog_load(state, attributes(*ld_imm64(1, op.PSEUDO_MAP_FD, fd)))
    state.fds.close(fd)
    assert used.alive
    state.fds.close(program)
    assert not used.alive


def test_the_digest_leaves_out_the_fds_of_maps_but_not_their_indices() -> None:
    digests = set()
    for fd in (3, 4):
        state = fresh_state()
        state.fds.install(ModelMap(ATTRIBUTES, state.memory), fd)
        prog_load(state, attributes(*ld_imm64(1, op.PSEUDO_MAP_FD, fd)))
        digests.add(state.programs[0].digest)
    assert digests == {sha256(encode_insns([*ld_imm64(1, op.PSEUDO_MAP_FD, 0), *END]))}


def test_a_typed_ksym_becomes_its_address() -> None:
    btf = SyntheticBtf()
    known = btf.find("jiffies", Kind.VAR) or 0
    state = KernelState(KFUNC_SERIES, btf, SymbolTable({"jiffies": 0xFFFF_FFFF_8123_4567}), ())
    assert errno_of(attributes(*ld_imm64(1, op.PSEUDO_BTF_ID, known)), state) == 0
    runnable = state.programs[0].runnable
    assert runnable is not None
    first, second = runnable.insns[:2]
    assert (first.imm & 0xFFFFFFFF, second.imm & 0xFFFFFFFF) == (0x81234567, 0xFFFFFFFF)


def test_a_typed_ksym_that_does_not_exist_is_refused() -> None:
    btf = SyntheticBtf()
    unplaced = btf.find("gone", Kind.VAR) or 0
    state = KernelState(KFUNC_SERIES, btf, SymbolTable({}), ())
    assert errno_of(attributes(*ld_imm64(1, op.PSEUDO_BTF_ID, unplaced)), state) == ENOENT
    assert errno_of(attributes(*ld_imm64(1, op.PSEUDO_BTF_ID, 12345)), state) == EINVAL


def test_a_packet_load_is_for_programs_with_packets() -> None:
    load_byte = Insn(op.LD | op.ABS | op.B)
    assert errno_of(attributes(load_byte, type=ProgType.SOCKET_FILTER, flags=0)) == 0
    assert errno_of(attributes(load_byte)) == EINVAL


def test_few_types_can_be_sleepable() -> None:
    assert errno_of(attributes(type=ProgType.KPROBE)) == 0
    assert errno_of(attributes(type=ProgType.XDP)) == EINVAL


def test_fd_array_cnt_without_an_array_is_efault() -> None:
    assert errno_of(attributes(fd_array_count=1)) == EFAULT
    assert errno_of(attributes(fd_array=(1,), fd_array_count=1)) == EINVAL
    assert errno_of(attributes(fd_array=(99,), fd_array_count=1)) == EBADF


def _deny(_operation: Operation, _program: ProgramFacts) -> int:
    return -EPERM


def test_the_signature_is_checked_before_the_hook_is_asked() -> None:
    with pytest.raises(KernelError) as refused:
        replace(GOOD, signature=sign(b"something else")).load(trusting_kernel(_deny))
    assert refused.value.errno == EKEYREJECTED


def test_the_hook_is_asked_before_kfunc_calls_are_resolved() -> None:
    with pytest.raises(KernelError) as refused:
        replace(GOOD, btf=None, is_signed=False).load(trusting_kernel(_deny))
    assert refused.value.errno == EPERM
    assert "bpf_prog_load" in refused.value.rule


def test_the_hook_sees_verdict_keyring_and_that_user_space_loads() -> None:
    seen: list[ProgramFacts] = []

    def watch(_operation: Operation, program: ProgramFacts) -> int:
        seen.append(program)
        return 0

    GOOD.load(trusting_kernel(watch))
    assert seen == [
        ProgramFacts("loader", ProgType.SYSCALL, Verdict.OK, KeyringKind.USER, is_kernel=False)
    ]


def test_hooks_are_asked_in_order_until_one_refuses() -> None:
    asked: list[str] = []

    def first(_operation: Operation, _program: ProgramFacts) -> int:
        asked.append("first")
        return -EPERM

    def second(_operation: Operation, _program: ProgramFacts) -> int:
        asked.append("second")
        return 0

    with pytest.raises(KernelError):
        GOOD.load(trusting_kernel(first, second))
    assert asked == ["first"]


def test_a_refused_program_is_not_recorded() -> None:
    kernel = trusting_kernel(_deny)
    with pytest.raises(KernelError):
        GOOD.load(kernel)
    assert kernel.programs == ()


def test_only_syscall_programs_run_in_the_model() -> None:
    kernel = ModelKernel()
    fd = kernel.prog_load(ProgLoad(ProgType.XDP, "p", encode_insns(END), "GPL"))
    with pytest.raises(KernelError) as refused:
        kernel.prog_run(fd, b"")
    assert refused.value.errno_name == "ENOTSUPP"


def test_a_context_has_at_most_65535_bytes() -> None:
    kernel = ModelKernel()
    fd = kernel.prog_load(
        ProgLoad(ProgType.SYSCALL, "p", encode_insns(END), "GPL", flags=ProgFlag.SLEEPABLE)
    )
    assert kernel.prog_run(fd, bytes(65535)).retval == 0
    with pytest.raises(KernelError) as refused:
        kernel.prog_run(fd, bytes(65536))
    assert refused.value.errno == EINVAL


def test_a_program_writes_its_own_frozen_map_but_not_a_read_only_one() -> None:
    insns = [*ld_imm64(1, op.PSEUDO_MAP_IDX_VALUE, 0), st_mem(op.W, 1, 0, 7), *END]

    def load_and_run(flags: int) -> bytes | None:
        kernel = ModelKernel()
        fd = kernel.map_create(MapCreate(MapType.ARRAY, "m", 4, 8, 1, flags=flags))
        kernel.map_freeze(fd)
        code = encode_insns(insns)
        request = ProgLoad(
            ProgType.SYSCALL, "p", code, "GPL", flags=ProgFlag.SLEEPABLE, fd_array=(fd,)
        )
        assert kernel.prog_run(kernel.prog_load(request), bytes(CTX_SIZE)).retval == 0
        return kernel.map_lookup(fd, bytes(4), 8)

    assert load_and_run(0) == b"\7" + bytes(7)
    with pytest.raises(KernelError, match="write into map forbidden") as refused:
        load_and_run(MapFlag.RDONLY_PROG)
    assert refused.value.errno == EACCES


def test_a_long_program_runs_out_of_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bpfseal.kernel.model.run.INSN_BUDGET", 1000)
    kernel = ModelKernel()
    insns = [mov64_imm(6, 900), alu64_imm(op.SUB, 6, 1), jmp_imm(op.JNE, 6, 0, -2), *END]
    fd = kernel.prog_load(
        ProgLoad(ProgType.SYSCALL, "p", encode_insns(insns), "GPL", flags=ProgFlag.SLEEPABLE)
    )
    with pytest.raises(KernelError, match="budget"):
        kernel.prog_run(fd, b"")


def test_a_snapshot_is_a_value_of_its_own() -> None:
    kernel = trusting_kernel()
    fd = GOOD.load(kernel)
    before = kernel.program(fd)
    kernel.prog_run(fd, bytes(CTX_SIZE))
    assert (before.verdict, kernel.program(fd).verdict) == (Verdict.OK, Verdict.METADATA_VERIFIED)
    assert before.maps == ("meta",)
