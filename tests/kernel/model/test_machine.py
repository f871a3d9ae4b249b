"""The machine: memory insns, atomics, control flow, calls, and everything that stops a program.

RFC 9669 unless another source is named.
"""

from __future__ import annotations

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    Insn,
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
from bpfseal.errors import KernelError
from bpfseal.kernel.model.machine import HelperFunction, Machine, MachineFault, Program
from bpfseal.kernel.model.memory import Memory, MemoryFault
from bpfseal.kernel.model.processor import MAX_LOOPS

ONES = 0xFFFFFFFF_FFFFFFFF
NOTHING = mov64_imm(0, 0)
EXIT = exit_insn()
B, H, W, DW = op.B, op.H, op.W, op.DW


def run(
    *insns: Insn,
    ctx: bytearray | None = None,
    helpers: dict[int, HelperFunction] | None = None,
    kfuncs: dict[int, HelperFunction] | None = None,
    budget: int = 1_000_000,
) -> int:
    """Run a program whose r1 points to `ctx` and return r0."""
    memory = Memory()
    region = memory.map("ctx", bytearray() if ctx is None else ctx)
    machine = Machine(memory, helpers or {}, kfuncs or {}, budget=budget)
    return machine.run(Program(insns, "test"), region.base)


def fault_of(*insns: Insn, ctx: bytearray | None = None, budget: int = 1000) -> str:
    with pytest.raises(MachineFault) as caught:
        run(*insns, ctx=ctx, budget=budget)
    return str(caught.value)


def call_program(displacement: int) -> Insn:
    return Insn(op.JMP | op.CALL, 0, op.PSEUDO_CALL, 0, displacement)


# --- 5.1, 5.2: regular and sign-extending loads and stores


@pytest.mark.parametrize(
    ("insn", "expected"),
    [
        (ldx_mem(B, 0, 1, 1), 0x89),
        (ldx_mem(H, 0, 1, 1), 0xA989),
        (ldx_mem(W, 0, 1, 1), 0xE9C9A989),
        (ldx_mem(DW, 0, 1, 1), 0xFFE9D9C9_E9C9A989),
        (Insn(op.LDX | op.MEMSX | B, 0, 1, 1), 0xFFFFFFFF_FFFFFF89),
        (Insn(op.LDX | op.MEMSX | H, 0, 1, 1), 0xFFFFFFFF_FFFFA989),
        (Insn(op.LDX | op.MEMSX | W, 0, 1, 1), 0xFFFFFFFF_E9C9A989),
        (Insn(op.LDX | op.MEMSX | B, 0, 1, 0), 0x11),
    ],
)
def test_5_1_and_5_2_a_load_extends_as_its_mode_says(insn: Insn, expected: int) -> None:
    ctx = bytearray.fromhex("11 89a9c9e9 c9d9e9ff 00")
    assert run(mov64_imm(0, -1), insn, EXIT, ctx=ctx) == expected


@pytest.mark.parametrize(("size", "count"), [(B, 1), (H, 2), (W, 4), (DW, 8)])
def test_5_1_a_store_writes_the_low_bytes_of_the_register(size: int, count: int) -> None:
    ctx = bytearray(12)
    value = ld_imm64(2, 0, 0x55667788, 0x11223344)
    run(*value, stx_mem(size, 1, 2, 2), NOTHING, EXIT, ctx=ctx)
    assert ctx == b"\0\0" + bytes.fromhex("8877665544332211")[:count] + bytes(10 - count)


@pytest.mark.parametrize(("size", "count"), [(B, 1), (H, 2), (W, 4), (DW, 8)])
def test_5_1_a_stored_immediate_is_sign_extended(size: int, count: int) -> None:
    ctx = bytearray(12)
    run(st_mem(size, 1, 2, -2), NOTHING, EXIT, ctx=ctx)
    assert ctx == b"\0\0" + (b"\xfe" + b"\xff" * 7)[:count] + bytes(10 - count)


def test_5_1_the_offset_is_signed() -> None:
    ctx = bytearray(8)
    run(alu64_imm(op.ADD, 1, 8), st_mem(B, 1, -1, 7), NOTHING, EXIT, ctx=ctx)
    assert ctx[7] == 7


def test_5_4_ld_imm64_joins_both_immediates() -> None:
    assert run(*ld_imm64(0, 0, 0x80000001, 0xFFFFFFFE), EXIT) == 0xFFFFFFFE_80000001


@pytest.mark.parametrize("source", range(7))
def test_5_4_a_relocated_ld_imm64_holds_its_value_whatever_its_source(source: int) -> None:
    assert run(*ld_imm64(0, source, 5, 6), EXIT) == 0x6_00000005


# --- 5.3: atomics


@pytest.mark.parametrize(
    ("operation", "stored"),
    [(op.ADD, 0x1_0000000B), (op.OR, 0xFFFFFFFF), (op.AND, 0xC), (op.XOR, 0xFFFFFFF3)],
)
@pytest.mark.parametrize("fetch", [0, op.FETCH])
@pytest.mark.parametrize("size", [W, DW])
def test_5_3_an_atomic_operation_changes_memory_and_fetches_the_old_value(
    operation: int, stored: int, fetch: int, size: int
) -> None:
    ctx = bytearray(b"\xff\xff\xff\xff" + bytes(4))
    source = (0xC, 0 if size == DW else 0xAAAAAAAA)  # 32 bits: the high half takes no part
    insn = Insn(op.STX | op.ATOMIC | size, 1, 2, 0, operation | fetch)
    r0 = run(*ld_imm64(2, 0, *source), insn, mov64_reg(0, 2), EXIT, ctx=ctx)
    assert r0 == (0xFFFFFFFF if fetch else source[1] << 32 | source[0])
    expected = stored if size == DW else stored & 0xFFFFFFFF
    assert int.from_bytes(ctx, "little") == expected


@pytest.mark.parametrize(("size", "old"), [(W, 0x33333333), (DW, 0x44444444_33333333)])
def test_5_3_xchg_swaps_register_and_memory(size: int, old: int) -> None:
    ctx = bytearray(b"\x33" * 4 + b"\x44" * 4)
    insn = Insn(op.STX | op.ATOMIC | size, 1, 2, 0, op.XCHG)
    assert run(mov64_imm(2, -2), insn, mov64_reg(0, 2), EXIT, ctx=ctx) == old
    assert ctx == b"\xfe\xff\xff\xff" + (b"\xff" * 4 if size == DW else b"\x44" * 4)


@pytest.mark.parametrize("size", [W, DW])
@pytest.mark.parametrize("matches", [True, False])
def test_5_3_cmpxchg_stores_only_what_r0_expects_and_fetches_to_r0(
    size: int, matches: bool
) -> None:
    ctx = bytearray(b"\x07" + bytes(7))
    expected_high = 0 if size == DW else 9  # 32 bits: the high half takes no part
    expected = ld_imm64(0, 0, 7 if matches else 8, expected_high)
    insn = Insn(op.STX | op.ATOMIC | size, 1, 2, 0, op.CMPXCHG)
    assert run(*expected, mov64_imm(2, 5), insn, EXIT, ctx=ctx) == 7
    assert ctx[0] == (5 if matches else 7)


@pytest.mark.parametrize(("size", "count"), [(B, 1), (H, 2), (W, 4), (DW, 8)])
def test_linux_load_acquire_and_store_release_are_loads_and_stores(size: int, count: int) -> None:
    before = bytes(range(0xF0, 0x100))
    ctx = bytearray(before)
    load = Insn(op.STX | op.ATOMIC | size, 0, 1, 2, op.LOAD_ACQ)
    store = Insn(op.STX | op.ATOMIC | size, 1, 0, 8, op.STORE_REL)
    assert run(load, store, EXIT, ctx=ctx) == int.from_bytes(before[2 : 2 + count], "little")
    assert ctx == before[:8] + before[2 : 2 + count] + before[8 + count :]


# --- 4.3: control flow


def test_4_3_goto_and_gotol_jump_by_off_and_by_imm() -> None:
    skipped = mov64_imm(0, 9)
    assert run(NOTHING, jump(1), skipped, EXIT) == 0
    assert run(NOTHING, Insn(op.JMP32 | op.JA, 0, 0, 0, 1), skipped, EXIT) == 0


def test_4_3_gotol_reaches_beyond_16_bits() -> None:
    far = 40_000
    program = [NOTHING, Insn(op.JMP32 | op.JA, 0, 0, 0, far), *[mov64_imm(0, 9)] * far, EXIT]
    assert run(*program) == 0


def test_4_3_a_loop_jumps_backward() -> None:
    count, decrement = alu64_imm(op.ADD, 0, 3), alu64_imm(op.SUB, 2, 1)
    loop = (count, decrement, jmp_imm(op.JNE, 2, 0, -3))
    assert run(NOTHING, mov64_imm(2, 5), *loop, EXIT) == 15


def test_linux_may_goto_leaves_a_loop_when_its_frame_has_looped_enough() -> None:
    may_goto = Insn(op.JMP | op.JCOND, 0, 0, 2)
    assert run(NOTHING, may_goto, alu64_imm(op.ADD, 0, 1), jump(-3), EXIT) == MAX_LOOPS


# --- 4.3.1: helpers and kfuncs


def test_4_3_1_a_helper_takes_r1_to_r5_unsigned_and_answers_in_r0() -> None:
    seen: list[tuple[int, ...]] = []

    def helper(_machine: Machine, *arguments: int) -> int:
        seen.append(arguments)
        return -22

    arguments = [mov64_imm(register, -register) for register in range(1, 6)]
    assert run(*arguments, call_helper(166), EXIT, helpers={166: helper}) == -22 & ONES
    assert seen == [tuple(-register & ONES for register in range(1, 6))]


def test_4_3_1_a_helper_reaches_the_memory_of_the_program() -> None:
    def helper(machine: Machine, address: int, *_: int) -> int:
        machine.memory.store(address, 4, 77)
        return 0

    to_stack = (mov64_reg(1, 10), alu64_imm(op.ADD, 1, -4))
    program = (*to_stack, call_helper(1), ldx_mem(W, 0, 10, -4), EXIT)
    assert run(*program, helpers={1: helper}) == 77


def test_4_3_1_a_kfunc_is_called_by_its_btf_id() -> None:
    kfunc: HelperFunction = lambda _machine, r1, *_: r1 + 1  # noqa: E731
    call = Insn(op.JMP | op.CALL, 0, op.PSEUDO_KFUNC_CALL, 0, 70_000)
    assert run(mov64_imm(1, 4), call, EXIT, kfuncs={70_000: kfunc}) == 5


def test_an_unknown_helper_or_kfunc_is_a_fault() -> None:
    assert fault_of(call_helper(999), EXIT) == "test, insn 0: there is no helper 999"
    kfunc_call = Insn(op.JMP | op.CALL, 0, op.PSEUDO_KFUNC_CALL, 0, 12)
    assert fault_of(NOTHING, kfunc_call, EXIT) == "test, insn 1: there is no kfunc 12"


def test_a_bad_pointer_given_to_a_helper_is_a_fault_of_the_call() -> None:
    def helper(machine: Machine, address: int, *_: int) -> int:
        return machine.memory.load(address, 8)

    with pytest.raises(MachineFault, match="insn 1: read of 8 bytes at 0x10") as caught:
        run(mov64_imm(1, 16), call_helper(1), EXIT, helpers={1: helper})
    assert isinstance(caught.value.__cause__, MemoryFault)


def test_another_error_of_a_helper_passes_through() -> None:
    def helper(_machine: Machine, *_: int) -> int:
        raise KernelError(1, step="prog_load")

    with pytest.raises(KernelError, match="EPERM"):
        run(call_helper(1), EXIT, helpers={1: helper})


# --- 4.3.2: program-local functions


def test_4_3_2_a_function_gets_r1_to_r5_and_returns_r0() -> None:
    function = (mov64_reg(0, 1), Insn(op.ALU64 | op.SUB | op.X, 0, 5), EXIT)
    assert run(mov64_imm(1, 50), mov64_imm(5, 8), call_program(1), EXIT, *function) == 42


def test_abi_r6_to_r10_are_the_callers_again_after_a_call() -> None:
    function = (*(mov64_imm(register, 1) for register in range(6, 10)), EXIT)
    sums = [Insn(op.ALU64 | op.ADD | op.X, 0, register) for register in range(6, 10)]
    keep = [mov64_imm(register, 10 * register) for register in range(6, 10)]
    program = (*keep, st_mem(B, 10, -1, 5), call_program(7), NOTHING, *sums)
    assert run(*program, ldx_mem(B, 1, 10, -1), EXIT, *function) == 300


def test_each_frame_has_its_own_stack_and_can_reach_its_callers() -> None:
    function = (st_mem(DW, 10, -8, 1), st_mem(DW, 1, 0, 2), EXIT)
    to_stack = (mov64_reg(1, 10), alu64_imm(op.ADD, 1, -8))
    program = (*to_stack, call_program(2), ldx_mem(DW, 0, 10, -8), EXIT, *function)
    assert run(*program) == 2


def test_a_fresh_frame_holds_nothing_of_the_last_one() -> None:
    function = (ldx_mem(DW, 0, 10, -8), st_mem(DW, 10, -8, 7), EXIT)
    assert run(call_program(2), call_program(1), EXIT, *function) == 0


def test_a_stack_is_gone_when_its_frame_returns() -> None:
    function = (mov64_reg(0, 10), EXIT)
    program = (call_program(2), ldx_mem(B, 0, 0, -1), EXIT, *function)
    assert "insn 1: read of 1 bytes at 0xffff8002000001ff, where nothing" in fault_of(*program)


def test_linux_sixteen_frames_are_the_most() -> None:
    deepen = (alu64_imm(op.SUB, 1, 1), jmp_imm(op.JEQ, 1, 0, 1), call_program(-3), NOTHING, EXIT)
    assert run(mov64_imm(1, 16), *deepen) == 0
    message = fault_of(mov64_imm(1, 17), *deepen)
    assert message == "test, insn 3: call deeper than 16 frames"


@pytest.mark.parametrize("failing", [False, True])
def test_a_run_leaves_no_stack_behind(failing: bool) -> None:
    memory = Memory()
    last = ldx_mem(B, 0, 10, 0) if failing else NOTHING
    program = Program((call_program(1), EXIT, mov64_reg(6, 10), last, EXIT), "test")
    stacks: set[int] = set()
    machine = Machine(memory, {}, {}, trace=lambda _index, _insn, r: stacks.add(r[10]))
    for _ in range(2):
        try:
            machine.run(program, 0)
        except MachineFault:
            assert failing
    assert len(stacks) == 4
    assert not any(memory.region_at(stack - 1) for stack in stacks)


# --- faults


@pytest.mark.parametrize(
    ("insn", "message"),
    [
        (ldx_mem(W, 0, 10, 0), "read of 4 bytes at stack+512, behind the end of 512"),
        (ldx_mem(DW, 0, 10, -4), "read of 8 bytes at stack+508, behind the end of 512"),
        (st_mem(B, 10, -513, 0), "write of 1 bytes at stack-1, before the start"),
        (stx_mem(DW, 1, 0, 1), "write of 8 bytes at ctx+1, behind the end of 8"),
        (ldx_mem(B, 0, 0, -1), "read of 1 bytes at 0xffffffffffffffff, where nothing is mapped"),
        (Insn(op.STX | op.ATOMIC | W, 0, 1), "read of 4 bytes at 0x0, where nothing is mapped"),
    ],
)
def test_a_memory_fault_names_insn_and_place_and_keeps_its_cause(insn: Insn, message: str) -> None:
    with pytest.raises(MachineFault) as caught:
        run(NOTHING, insn, EXIT, ctx=bytearray(8))
    assert str(caught.value) == f"test, insn 1: {message}"
    assert (caught.value.program, caught.value.index, caught.value.reason) == ("test", 1, message)
    assert isinstance(caught.value.__cause__, MemoryFault)


@pytest.mark.parametrize("size", [W, DW])
def test_an_atomic_on_read_only_memory_is_a_fault(size: int) -> None:
    memory = Memory()
    rodata = memory.map("rodata", bytearray(8), writable=False)
    program = Program((Insn(op.STX | op.ATOMIC | size, 1, 1), NOTHING, EXIT), "test")
    with pytest.raises(MachineFault, match="which is read-only"):
        Machine(memory, {}, {}).run(program, rodata.base)


def test_the_budget_ends_a_loop() -> None:
    assert run(NOTHING, EXIT, budget=2) == 0
    assert fault_of(NOTHING, EXIT, budget=1) == "test, insn 1: the budget of 1 insns is used up"
    assert "insn 0: the budget of 1000 insns is used up" in fault_of(jump(-1), EXIT)


def test_a_malformed_program_is_refused_before_it_runs() -> None:
    ctx = bytearray(1)
    fault = fault_of(st_mem(B, 1, 0, 1), NOTHING, EXIT, Insn(0xFF), EXIT, ctx=ctx)
    assert "insn 3: unknown opcode ff" in fault
    assert ctx == b"\0"


def test_the_trace_sees_each_insn_before_it_is_done() -> None:
    seen: list[tuple[int, Insn, int]] = []
    machine = Machine(
        Memory(), {}, {}, trace=lambda index, insn, r: seen.append((index, insn, r[0]))
    )
    first, second = ld_imm64(0, 0, 5)
    machine.run(Program((first, second, alu64_imm(op.ADD, 0, 1), EXIT), "test"), 0)
    assert seen == [(0, first, 0), (2, alu64_imm(op.ADD, 0, 1), 5), (3, EXIT, 6)]


def test_a_loader_of_12_000_insns_takes_no_more_steps_than_it_has_insns() -> None:
    body = (mov64_imm(2, 1), stx_mem(DW, 10, 2, -8), ldx_mem(DW, 0, 10, -8)) * 4000
    machine = Machine(Memory(), {}, {}, budget=len(body) + 1)
    assert machine.run(Program((*body, EXIT), "test"), 0) == 1


def test_a_fault_names_the_line_of_source_where_it_is_known() -> None:
    lines = {0: "a.c:3: int x;", 1: "a.c:4: *p = 1;"}
    program = Program((NOTHING, st_mem(B, 0, 0, 1), EXIT), "test", lines)
    with pytest.raises(MachineFault) as caught:
        Machine(Memory(), {}, {}).run(program, 0)
    assert str(caught.value).startswith("test, insn 1 (a.c:4: *p = 1;): write of 1 bytes at 0x0")
    assert caught.value.line == "a.c:4: *p = 1;"
