"""The digest in the check block: found in the exact shape of the scheme, else not at all."""

from __future__ import annotations

import pytest

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import (
    INSN_SIZE,
    Insn,
    decode_insns,
    encode_insns,
    exit_insn,
    jmp_imm,
    mov64_imm,
)
from bpfseal.errors import InputError
from bpfseal.loader.check_block import carried_digest
from bpfseal.scheme import KFUNC

from .support import INSNS, METADATA, PROLOGUE_SLOTS, kfunc_call, loader_insns, sha256

KFUNC_BLOCK_SLOTS = 20
"""Slots of the block: 2 for the map, 2 for the place, 4 times 3, length, call, r7 = r0, jne."""

DIGEST = sha256(METADATA)
SLOTS = decode_insns(INSNS)
START = next(i for i, insn in enumerate(SLOTS) if insn.src == op.PSEUDO_MAP_IDX)


def digest_of(slots: list[Insn]) -> bytes | None:
    return carried_digest(encode_insns(slots), KFUNC, "little")


def test_the_digest_is_read_from_the_four_immediates() -> None:
    assert carried_digest(INSNS, KFUNC, "little") == DIGEST


def test_in_a_big_endian_loader_the_immediates_are_big_endian() -> None:
    words = [int.from_bytes(DIGEST[at : at + 8], "big") for at in range(0, 32, 8)]
    swapped = b"".join(word.to_bytes(8, "little") for word in words)
    slots = decode_insns(loader_insns(kfunc_call(swapped)))
    assert carried_digest(encode_insns(slots, "big"), KFUNC, "big") == DIGEST


@pytest.mark.parametrize("index", range(KFUNC_BLOCK_SLOTS))
@pytest.mark.parametrize("field", ["code", "dst", "src"])
def test_any_other_opcode_or_register_in_the_block_is_no_check_block(
    index: int, field: str
) -> None:
    slots = list(SLOTS)
    insn = slots[START + index]
    slots[START + index] = insn._replace(**{field: getattr(insn, field) ^ 1})
    assert digest_of(slots) is None


@pytest.mark.parametrize("index", [0, 1, 2, 6, 9, 12, 15, 16, 18])
def test_another_map_length_or_place_is_no_check_block(index: int) -> None:
    """The map's index, the first move, the stores' displacements, the length, the last move."""
    slots = list(SLOTS)
    insn = slots[START + index]
    changed = {"off": insn.off + 8} if insn.insn_class == op.STX else {"imm": insn.imm + 1}
    slots[START + index] = insn._replace(**changed)
    assert digest_of(slots) is None


@pytest.mark.parametrize("index", range(PROLOGUE_SLOTS))
def test_a_loader_that_begins_otherwise_carries_nothing(index: int) -> None:
    """What runs before the check could make it worthless."""
    slots = list(SLOTS)
    slots[index] = slots[index]._replace(imm=slots[index].imm + 1, off=slots[index].off + 1)
    assert digest_of(slots) is None


def test_a_block_that_is_not_what_the_prologue_jumps_to_carries_nothing() -> None:
    slots = list(SLOTS)
    slots.insert(START, mov64_imm(0, 0))
    assert digest_of(slots) is None


def test_a_jump_that_goes_on_instead_of_leaving_is_no_check_block() -> None:
    slots = list(SLOTS)
    slots[START + KFUNC_BLOCK_SLOTS - 1] = jmp_imm(op.JNE, 0, 0, 1)
    assert digest_of(slots) is None


def test_a_loader_without_a_block_carries_nothing() -> None:
    assert digest_of([mov64_imm(0, 0), exit_insn()]) is None
    assert carried_digest(loader_insns(), KFUNC, "little") is None


def test_a_loader_that_is_cut_off_in_its_block_carries_nothing() -> None:
    for end in range(START, START + KFUNC_BLOCK_SLOTS):
        assert carried_digest(INSNS[: end * INSN_SIZE], KFUNC, "little") is None


def test_half_an_insn_is_an_input_error() -> None:
    with pytest.raises(InputError):
        carried_digest(INSNS[:-1], KFUNC, "little")
