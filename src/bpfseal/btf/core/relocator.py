"""Apply CO-RE records to insns: look a type up in a kernel's BTF and write what it says.

Source: kernel/bpf/btf.c ``bpf_core_apply``; tools/lib/bpf/relo_core.c ``bpf_core_calc_relo_insn``,
``bpf_core_patch_insn``. The log is, line for line, that of the kernel.

Example:
    >>> insns = list(program.insns)
    >>> Relocator(program_btf, TargetTypes(kernel_btf)).apply(insns, 0, relocation)
    >>> insns[relocation.insn].off
    1256
"""

from __future__ import annotations

from collections.abc import MutableSequence
from errno import EINVAL, ERANGE
from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn, signed32
from bpfseal.btf.btf import Btf
from bpfseal.btf.core.matching import TargetTypes, match
from bpfseal.btf.core.relocation import Relocation, RelocationError, RelocationKind
from bpfseal.btf.core.spec import Spec, Types, essential_name, parse_spec
from bpfseal.btf.core.value import Decision, decide

POISON: Final = 0xBAD2310
"""The helper that an insn calls which holds something that the kernel does not have."""

POISONED: Final = Insn(op.JMP | op.CALL, imm=POISON)
"""What such an insn becomes. It is no error in itself: a verifier refuses it if it gets there."""

_U64: Final = (1 << 64) - 1
_MAX_OFFSET: Final = 0x7FFF
_SIZE_BITS: Final = {size: bits for bits, size in op.ACCESS_BYTES.items()}
_SIZE_MASK: Final = 0x18


class Relocator:
    """Applies the records of one program against one kernel.

    Args:
        local: the BTF of the program.
        target: the types of the kernel.
    """

    def __init__(self, local: Btf, target: TargetTypes) -> None:
        self._local = Types(local)
        self._target = target
        self._log: list[str] = []

    @property
    def log(self) -> str:
        """What the kernel writes in its log of all records so far."""
        return "".join(self._log)

    def apply(self, insns: MutableSequence[Insn], number: int, relocation: Relocation) -> None:
        """Apply one record.

        Args:
            insns: the program, which is changed.
            number: the number of the record, for the log.
            relocation: the record; its insn is one of `insns`.

        Raises:
            RelocationError: what makes a kernel refuse the program, with its errno.
        """
        decision = self._decide(number, relocation)
        _Patch(insns, relocation.insn, number, self._log).apply(decision)

    def _note(self, line: str) -> None:
        self._log.append(f"{line}\n")

    def _refuse(self, line: str, errno: int = EINVAL) -> RelocationError:
        self._note(line)
        return RelocationError(line, errno)

    def _decide(self, number: int, relocation: Relocation) -> Decision:
        type_id, kind = relocation.type_id, relocation.kind
        if type_id >= len(self._local.btf):
            raise self._refuse(f"relo #{number}: bad type id {type_id}")
        ids = [] if kind is RelocationKind.TYPE_ID_LOCAL else self._find(type_id)
        prefix = f"prog '': relo #{number}: "
        try:
            local = parse_spec(self._local, relocation)
        except RelocationError as error:
            root = self._local[type_id]
            line = (
                f"{prefix}parsing [{type_id}] {root.kind.name} {root.name or '<anon>'}"
                f" + {relocation.access} failed: {-error.errno}"
            )
            raise self._refuse(line) from error
        self._note(prefix + local.describe())
        if kind is RelocationKind.TYPE_ID_LOCAL:
            return Decision(type_id, type_id, validate=False)
        return self._choose(prefix, local, ids)

    def _find(self, type_id: int) -> list[int]:
        """Return the kernel's types of the same name."""
        root = self._local[type_id]
        if not root.name:
            raise self._refuse(f"target candidate search failed for {type_id}")
        name = essential_name(root.name)
        ids = self._target.candidates(root)
        for found in ids:
            self._note(
                f"CO-RE relocating {root.kind.name} {name}: found target candidate [{found}]"
            )
        return ids

    def _choose(self, prefix: str, local: Spec, ids: list[int]) -> Decision:
        """Return the one decision that all candidates lead to."""
        chosen: tuple[Spec, Decision] | None = None
        for number, type_id in enumerate(ids):
            spec = Spec(self._target, type_id, local.kind)
            try:
                matches = match(local, spec)
            except RelocationError as error:
                line = (
                    f"{prefix}error matching candidate #{number} {spec.describe()}: {-error.errno}"
                )
                raise self._refuse(line, error.errno) from error
            word = "matching" if matches else "non-matching"
            self._note(f"{prefix}{word} candidate #{number} {spec.describe()}")
            if not matches:
                continue
            decision = decide(local, spec)
            if chosen is None:
                chosen = spec, decision
                continue
            first_spec, first = chosen
            if spec.bits != first_spec.bits:
                line = f"{prefix}field offset ambiguity: {spec.bits} != {first_spec.bits}"
                raise self._refuse(line)
            if (decision.poison, decision.new) != (first.poison, first.new):
                line = (
                    f"{prefix}relocation decision ambiguity: {_outcome(decision)}"
                    f" != {_outcome(first)}"
                )
                raise self._refuse(line)
        if chosen is not None:
            return chosen[1]
        self._note(f"{prefix}no matching targets found")
        return decide(local, None)


def _outcome(decision: Decision) -> str:
    return f"{'failure' if decision.poison else 'success'} {decision.new}"


class _Patch:
    """Writes a decision into an insn."""

    def __init__(
        self, insns: MutableSequence[Insn], index: int, number: int, log: list[str]
    ) -> None:
        self._insns = insns
        self._index = index
        self._number = number
        self._log = log

    def apply(self, decision: Decision) -> None:
        insn = self._insns[self._index]
        if decision.poison:
            self._poison(insn)
            return
        match insn.insn_class:
            case op.ALU | op.ALU64:
                self._patch_alu(insn, decision)
            case op.LDX | op.ST | op.STX:
                self._patch_memory(insn, decision)
            case op.LD:
                self._patch_ld_imm64(insn, decision)
            case _:
                code, dst, src, off, imm = insn
                raise self._refuse(
                    f"trying to relocate unrecognized insn #{self._index}, code:{code:#x},"
                    f" src:{src:#x}, dst:{dst:#x}, off:{off & 0xFFFFFFFF:#x},"
                    f" imm:{imm & 0xFFFFFFFF:#x}"
                )

    def _note(self, text: str) -> None:
        self._log.append(f"prog '': relo #{self._number}: {text}\n")

    def _refuse(self, text: str, errno: int = EINVAL) -> RelocationError:
        self._note(text)
        return RelocationError(f"relo #{self._number}: {text}", errno)

    def _set(self, index: int, insn: Insn) -> None:
        self._insns[index] = insn

    def _poison(self, insn: Insn) -> None:
        """Make the insn one that no verifier accepts, both slots of a ld_imm64."""
        for index in (self._index + 1, self._index) if insn.is_ld_imm64 else (self._index,):
            if index < len(self._insns):
                self._note(f"substituting insn #{index} w/ invalid insn")
                self._set(index, POISONED)

    def _patch_alu(self, insn: Insn, decision: Decision) -> None:
        what = f"insn #{self._index} (ALU/ALU64)"
        if insn.code & op.X:
            raise RelocationError(f"relo #{self._number}: {what} without an immediate")
        if decision.validate and insn.imm & _U64 != decision.original:
            raise self._refuse(f"unexpected {what} value: {_told(insn.imm, decision)}")
        self._set(self._index, insn._replace(imm=signed32(decision.new)))
        self._note(f"patched {what} imm {insn.imm & _U64} -> {decision.new}")

    def _patch_memory(self, insn: Insn, decision: Decision) -> None:
        what = f"insn #{self._index} (LDX/ST/STX)"
        if decision.validate and insn.off & _U64 != decision.original:
            raise self._refuse(f"unexpected {what} value: {_told(insn.off, decision)}")
        if decision.new > _MAX_OFFSET:
            raise self._refuse(f"{what} value too big: {decision.new}", ERANGE)
        if not decision.resizable:
            self._note(
                f"{what} accesses field incorrectly. Make sure you are accessing pointers,"
                " unsigned integers, or fields of matching type and size."
            )
            self._poison(insn)
            return
        self._set(self._index, insn._replace(off=decision.new))
        self._note(f"patched {what} off {insn.off & _U64} -> {decision.new}")
        if decision.new_size != decision.original_size:
            self._resize(what, decision)

    def _resize(self, what: str, decision: Decision) -> None:
        insn = self._insns[self._index]
        size = op.ACCESS_BYTES[insn.code & _SIZE_MASK]
        if size != decision.original_size:
            raise self._refuse(
                f"{what} unexpected mem size: got {size}, exp {decision.original_size}"
            )
        bits = _SIZE_BITS.get(decision.new_size)
        if bits is None:
            raise self._refuse(f"{what} invalid new mem size: {decision.new_size}")
        self._set(self._index, insn._replace(code=insn.code & ~_SIZE_MASK | bits))
        self._note(f"patched {what} mem_sz {decision.original_size} -> {decision.new_size}")

    def _patch_ld_imm64(self, insn: Insn, decision: Decision) -> None:
        what = f"insn #{self._index} (LDIMM64)"
        second = self._insns[self._index + 1] if self._index + 1 < len(self._insns) else POISONED
        if not insn.is_ld_imm64 or insn.src or insn.off or second[:4] != (0, 0, 0, 0):
            raise self._refuse(f"{what} has unexpected form")
        old = insn.imm & 0xFFFFFFFF | (second.imm & 0xFFFFFFFF) << 32
        if decision.validate and old != decision.original:
            raise self._refuse(
                f"unexpected {what} value: got {old}, exp {decision.original} -> {decision.new}"
            )
        self._set(self._index, insn._replace(imm=signed32(decision.new)))
        self._set(self._index + 1, second._replace(imm=signed32(decision.new >> 32)))
        self._note(f"patched {what} imm64 {old} -> {decision.new}")


def _told(value: int, decision: Decision) -> str:
    return f"got {value & 0xFFFFFFFF}, exp {decision.original} -> {decision.new}"
