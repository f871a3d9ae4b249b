"""Insns as earlier releases know them: what `bpfseal.kernel.model.decode` takes and they do not.

Example:
    >>> trap_of(PROFILES["6.12"].verifier, load_acquire)
    Trap('BPF_ATOMIC uses invalid atomic opcode 100')
"""

from __future__ import annotations

from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn
from bpfseal.kernel.model.processor import Scope, Trap
from bpfseal.kernel.model.verifier_facts import VerifierFacts

_MAY_GOTO: Final = op.JMP | op.JCOND
_ORDERED: Final = frozenset({op.LOAD_ACQ, op.STORE_REL})


def trap_of(facts: VerifierFacts, insn: Insn) -> Trap | None:
    """Return what is wrong with an insn on a release, if that is another thing than elsewhere."""
    if insn.code == _MAY_GOTO and facts.checks_may_goto_with_paths:
        if insn.dst or insn.src or insn.imm or not insn.off:
            return Trap(f"invalid may_goto off {insn.off} imm {insn.imm}")
        return None
    if insn.insn_class != op.STX or insn.code & 0xE0 != op.ATOMIC or facts.has_ordered_atomics:
        return None
    if op.ACCESS_BYTES[insn.code & 0x18] < 4:
        return Trap(f"unknown opcode {insn.code:02x}", scope=Scope.EVERYWHERE)
    if insn.imm in _ORDERED:
        return Trap(f"BPF_ATOMIC uses invalid atomic opcode {insn.imm:02x}")
    return None
