"""What is refused before a program runs, as the verifier refuses it at load.

Every case names the section of RFC 9669 that it comes from, or ``abi``
(Documentation/bpf/standardization/abi.rst) or ``linux`` (kernel/bpf/verifier.c).
"""

from __future__ import annotations

import itertools

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn, exit_insn, jmp_imm, jump, ld_imm64, ldx_mem, mov64_imm
from bpfseal.kernel.model.machine import MachineFault, Program

A, A64, J, J32 = op.ALU, op.ALU64, op.JMP, op.JMP32
K, X, B, W = op.K, op.X, op.B, op.W
NOTHING = mov64_imm(0, 0)
EXIT = exit_insn()


def refusal_of(*insns: Insn) -> str:
    with pytest.raises(MachineFault) as caught:
        _ = Program(insns, "test").code
    return str(caught.value)


def decodes(*insns: Insn) -> bool:
    try:
        _ = Program(insns, "test").code
    except MachineFault:
        return False
    return True


OPCODES = {
    "5 loads and stores": "18 61 69 71 79 81 89 91 62 6a 72 7a 63 6b 73 7b",
    "5.3 atomics, and linux of 1 and 2 bytes": "c3 db cb d3",
    "4.1 alu": "04 14 24 34 44 54 64 74 84 94 a4 b4 c4 0c 1c 2c 3c 4c 5c 6c 7c 9c ac bc cc",
    "4.1 alu64": "07 17 27 37 47 57 67 77 87 97 a7 b7 c7 0f 1f 2f 3f 4f 5f 6f 7f 9f af bf cf",
    "4.2 byte swaps": "d4 dc d7",
    "4.3 jumps": "05 15 25 35 45 55 65 75 85 95 a5 b5 c5 d5 1d 2d 3d 4d 5d 6d 7d ad bd cd dd",
    "4.3 jumps on 32 bits": "06 16 26 36 46 56 66 76 a6 b6 c6 d6 1e 2e 3e 4e 5e 6e 7e ae be ce de",
    "linux may_goto": "e5",
}


def test_the_opcodes_of_the_instruction_set_decode_and_no_others() -> None:
    second_slot = Insn(0)
    decoded = {
        code
        for code in range(256)
        for src, imm in itertools.product((0, 1), (0, 1, 16, op.LOAD_ACQ))
        if decodes(Insn(code, 0, src, 0, imm), EXIT)
        or decodes(Insn(code, 0, src, 0, imm), second_slot, EXIT)
    }
    assert decoded == set(bytes.fromhex("".join(OPCODES.values())))


@pytest.mark.parametrize(
    ("rule", "insn"),
    [
        ("4.1 an operation that does not exist", Insn(A64 | 0xE0)),
        ("4.1 neg takes no register", Insn(A64 | op.NEG | X)),
        ("4.2 bswap has no source bit", Insn(0xDF, 0, 0, 0, 16)),
        ("4.3 a condition that does not exist", Insn(J | 0xF0, 0, 0, 0, 0)),
        ("4.3 exit is no JMP32", Insn(J32 | op.EXIT)),
        ("4.3 call is no JMP32", Insn(J32 | op.CALL)),
        ("4.3.1 callx is refused", Insn(0x8D)),
        ("5 LDX has no IMM mode", Insn(op.LDX | W, 0, 1)),
        ("5.2 MEMSX of 8 bytes is none", Insn(0x99, 0, 1)),
        ("5.2 ST does not sign-extend", Insn(0x82, 1)),
        ("5.2 STX does not sign-extend", Insn(0x83, 1)),
        ("5.4 LD of 4 bytes is none", Insn(0x00)),
    ],
)  # fmt: skip
def test_an_unknown_opcode_is_refused(rule: str, insn: Insn) -> None:
    assert refusal_of(insn, EXIT) == f"test, insn 0: unknown opcode {insn.code:02x}", rule


def test_atomics_that_change_memory_take_4_or_8_bytes() -> None:
    """RFC 9669, section 5.3; check_atomic_rmw in kernel/bpf/verifier.c."""
    assert refusal_of(Insn(0xD3, 1, 1), EXIT) == "test, insn 0: invalid atomic operand size"


@pytest.mark.parametrize(
    ("rule", "insn", "name"),
    [
        ("3.1 src beside an imm", Insn(A64 | op.ADD | K, 0, 1, 0, 1), "ALU"),
        ("3.1 imm beside a src", Insn(A64 | op.ADD | X, 0, 1, 0, 1), "ALU"),
        ("3.1 imm of neg", Insn(A64 | op.NEG, 0, 0, 0, 1), "NEG"),
        ("3.1 off of bswap", Insn(0xD7, 0, 0, 1, 16), "END"),
        ("3.1 src of a jump with an imm", Insn(J | op.JEQ | K, 0, 1, 0, 1), "JMP/JMP32"),
        ("3.1 imm of a jump with a src", Insn(J | op.JEQ | X, 0, 1, 0, 1), "JMP/JMP32"),
        ("3.1 imm of goto", Insn(J | op.JA, 0, 0, 0, 1), "JA"),
        ("3.1 off of gotol", Insn(J32 | op.JA, 0, 0, 1, 0), "JA"),
        ("3.1 dst of exit", Insn(J | op.EXIT, 1), "EXIT"),
        ("3.1 off of a helper call", Insn(J | op.CALL, 0, 0, 1, 1), "CALL"),
        ("3.1 dst of a call", Insn(J | op.CALL, 1, 0, 0, 1), "CALL"),
        ("3.1 imm of a load", Insn(op.LDX | op.MEM | op.W, 1, 2, 0, 1), "LDX"),
        ("3.1 imm of a store", Insn(op.STX | op.MEM | op.W, 1, 2, 0, 1), "STX"),
        ("3.1 src of a store of imm", Insn(op.ST | op.MEM | op.W, 2, 1, 0, 1), "ST"),
        ("4.1 off 1 is for division alone", Insn(A64 | op.ADD | K, 0, 0, 1, 1), "ALU"),
        ("4.1 division knows off 0 and 1", Insn(A64 | op.DIV | K, 0, 0, 2, 1), "ALU"),
        ("4.1 movsx takes no imm", Insn(A64 | op.MOV | K, 0, 0, 8, 1), "MOV"),
        ("4.1 movsx knows 8, 16 and 32", Insn(A64 | op.MOV | X, 0, 2, 24), "MOV"),
        ("4.1 movsx32 of 32 bits is none", Insn(A | op.MOV | X, 0, 2, 32), "MOV"),
        ("4.2 there are 16, 32 and 64 bits", Insn(0xD4, 0, 0, 0, 8), "END"),
        ("4.3.1 sources of calls", Insn(0x85, 0, 3), "CALL"),
    ],
)
def test_a_reserved_field_must_be_zero(rule: str, insn: Insn, name: str) -> None:
    assert refusal_of(insn, EXIT) == f"test, insn 0: BPF_{name} uses reserved fields", rule


@pytest.mark.parametrize(
    ("rule", "insns", "message"),
    [
        ("5.3 no such operation", (Insn(0xC3, 1, 1, 0, 2),), "uses invalid atomic opcode 02"),
        ("5.3 XCHG has FETCH", (Insn(0xC3, 1, 1, 0, 0xE0),), "uses invalid atomic opcode e0"),
        ("5.4 the second slot is missing", (Insn(0x18),), "invalid bpf_ld_imm64 insn"),
        ("5.4 the second slot is plain", (Insn(0x18), EXIT), "invalid bpf_ld_imm64 insn"),
        ("5.4 off", (Insn(0x18, 0, 0, 1), Insn(0), EXIT), "BPF_LD_IMM64 uses reserved fields"),
        ("5.5 LD_ABS is legacy", (Insn(0x20), EXIT), "BPF_LD_[ABS|IND] instructions not"),
        ("5.5 LD_IND is legacy", (Insn(0x50), EXIT), "BPF_LD_[ABS|IND] instructions not"),
        ("2 r11 as dst", (Insn(0xB7, 11), EXIT), "insn 0: R11 is invalid"),
        ("2 r15 as src", (Insn(0xBF, 0, 15), EXIT), "insn 0: R15 is invalid"),
        (
            "abi r10 is read-only for ALU",
            (mov64_imm(10, 0), EXIT),
            "insn 0: frame pointer is read only",
        ),
        ("abi for loads", (ldx_mem(B, 10, 1, 0), EXIT), "insn 0: frame pointer is read only"),
        ("abi for ld_imm64", (*ld_imm64(10, 0, 0), EXIT), "insn 0: frame pointer is read only"),
        ("abi for fetches", (Insn(0xDB, 1, 10, 0, 1), EXIT), "insn 0: frame pointer is read only"),
        ("4.3 jump before the start", (jump(-2), EXIT), "jump out of range from insn 0 to -1"),
        ("4.3 jump behind the end", (jump(1), EXIT), "out of range from insn 0 to 2"),
        ("4.3 a condition too", (jmp_imm(op.JEQ, 1, 0, 9), EXIT), "range from insn 0 to 10"),
        ("4.3 gotol too", (Insn(0x06, 0, 0, 0, 1 << 30), EXIT), "from insn 0 to 1073741825"),
        ("4.3 may_goto too", (Insn(0xE5, 0, 0, 5), EXIT), "out of range from insn 0 to 6"),
        ("4.3.2 a call too", (Insn(0x85, 0, 1, 0, 3), EXIT), "out of range from insn 0 to 4"),
        (
            "4.3 jump into ld_imm64",
            (jump(1), *ld_imm64(0, 0, 0), EXIT),
            "insn 0: jump into the middle of ldimm64 insn 1",
        ),
        ("linux the end is no exit", (NOTHING, NOTHING), "insn 2: the program runs off its end"),
        ("linux there is no program", (), "insn 0: the program runs off its end"),
    ],
)
def test_a_malformed_program_is_refused(rule: str, insns: tuple[Insn, ...], message: str) -> None:
    assert message in refusal_of(*insns), rule
