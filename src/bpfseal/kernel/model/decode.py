"""Instructions as operations: what each does to a processor (RFC 9669, sections 4 and 5).

`decode` reads an insn and returns an `Operation`: a statement or a condition in Python, with names
for the registers and numbers that are the insn's own. An insn that is malformed whatever the
registers hold is refused here, as the verifier refuses it at load: an unknown opcode, a reserved
field in use, a jump that leads nowhere, a write to the frame pointer.

Example:
    >>> insns = (Insn(op.ALU64 | op.ADD | op.X, 1, 2), exit_insn())
    >>> decode(insns, 0, insn_starts(insns)).text
    '{dst} = {dst} + {src} & 18446744073709551615'
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from errno import EACCES
from functools import lru_cache
from typing import Final, NamedTuple

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn
from bpfseal.kernel.model import alu
from bpfseal.kernel.model.processor import FRAME_POINTER, REGISTER_COUNT, Scope, Trap

U32: Final = (1 << 32) - 1
U64: Final = (1 << 64) - 1

_SIZE = 0x18
_MODE = 0xE0
_OPERATION = 0xF0


ALWAYS: Final = "True"
"""The condition of an unconditional jump."""


class Form(Enum):
    """What the text of an operation is."""

    STATEMENT = "a statement; the next insn follows"
    STORE = "what is stored at the address; the next insn follows"
    CONDITION = "where it holds, the jump is taken"
    CONTROL = "an expression that enters or leaves a frame, or may: the index to go on at"


class Operation(NamedTuple):
    """What an insn does, wherever it stands.

    Attributes:
        form: what `text` is.
        text: Python with the names ``{dst}`` and ``{src}`` for the two registers, ``{off}`` and
            ``{value}`` for the numbers below, ``{loaded}`` for what is at the address, ``{r0}``
            for that register, ``{after}`` and ``{target}`` for the two indices that may come next;
            `processor` and its `memory` have these names.
        dst: the destination register, with the address of a store.
        src: the source register, with the address of a load.
        off: the offset of an access.
        value: the second operand, unsigned; the number of what is called.
        size: bytes of a load or store.
        displacement: how far a jump leads, counted from the next insn.
        slots: how many slots the insn takes.
    """

    form: Form
    text: str
    dst: int = 0
    src: int = 0
    off: int = 0
    value: int = 0
    size: int = 0
    displacement: int | None = None
    slots: int = 1

    def target(self, index: int) -> int:
        """Return where a jump or call at `index` leads; the next slot for all others."""
        return index + 1 + (self.displacement or 0)


def insn_starts(insns: Sequence[Insn]) -> frozenset[int]:
    """Return the indices at which an insn starts: all but the second slots of ld_imm64."""
    starts = []
    index = 0
    while index < len(insns):
        starts.append(index)
        index += 2 if insns[index].code == op.LD_IMM64 else 1
    return frozenset(starts)


def decode(insns: Sequence[Insn], index: int, starts: AbstractSet[int]) -> Operation:
    """Return what the insn at `index` does.

    Args:
        insns: the whole program.
        index: where the insn starts.
        starts: where insns start, as `insn_starts` gives it.

    Raises:
        Trap: if no kernel would load this insn.
    """
    insn = insns[index]
    second = None
    if insn.code == op.LD_IMM64 and index + 1 < len(insns):
        second = insns[index + 1]
    operation = _operation(insn, second)
    if operation.displacement is not None:
        target = operation.target(index)
        if not 0 <= target < len(insns):
            raise Trap(f"jump out of range from insn {index} to {target}")
        if target not in starts:
            raise Trap(f"jump into the middle of ldimm64 insn {target - 1}")
    return operation


@lru_cache(maxsize=4096)
def _operation(insn: Insn, second: Insn | None) -> Operation:
    """Decode an insn without regard to where it stands; `second` is that slot of a ld_imm64."""
    if max(insn.dst, insn.src) >= REGISTER_COUNT:
        raise Trap(f"R{max(insn.dst, insn.src)} is invalid", scope=Scope.FIELDS)
    if insn.code == op.LD_IMM64:
        return _ld_imm64(insn, second)
    return (_CONTROL.get(insn.code) or _CLASSES[insn.insn_class])(insn)


def _unknown(insn: Insn) -> Trap:
    return Trap(f"unknown opcode {insn.code:02x}", scope=Scope.EVERYWHERE)


def _reserved(name: str) -> Trap:
    return Trap(f"BPF_{name} uses reserved fields", scope=Scope.FIELDS)


def _require_zero(name: str, *fields: int) -> None:
    """Refuse a reserved field that is in use (RFC 9669, section 3.1)."""
    if any(fields):
        raise _reserved(name)


def _require_writable(register: int) -> None:
    """Refuse a write to r10 (check_reg_arg in kernel/bpf/verifier.c)."""
    if register == FRAME_POINTER:
        raise Trap("frame pointer is read only", EACCES)


def _operands(insn: Insn, name: str, bits: int) -> tuple[str, str, int]:
    """Return the texts of both operands, and the number that a second one has in `imm`."""
    is_register = bool(insn.code & op.X)
    _require_zero(name, insn.imm if is_register else insn.src)
    a, b = "{dst}", "{src}" if is_register else "{value}"
    if bits == 32:
        a, b = f"({a} & {U32})", f"({b} & {U32})" if is_register else b
    return a, b, 0 if is_register else insn.imm & (U64 if bits == 64 else U32)


def _statement(insn: Insn, text: str, value: int = 0, size: int = 0) -> Operation:
    return Operation(Form.STATEMENT, text, insn.dst, insn.src, insn.off, value, size)


def _alu(insn: Insn) -> Operation:
    operation = insn.code & _OPERATION
    bits = 64 if insn.insn_class == op.ALU64 else 32
    if operation == op.NEG:
        return _neg(insn, bits)
    if operation == op.END:
        return _end(insn)
    if alu.binary_text(operation, 0, bits, "", "") is None:
        raise _unknown(insn)
    name = "MOV" if operation == op.MOV else "ALU"
    if operation == op.MOV and insn.off and not insn.code & op.X:
        raise _reserved(name)
    a, b, value = _operands(insn, name, bits)
    text = alu.binary_text(operation, insn.off, bits, a, b)
    if text is None:
        raise _reserved(name)
    _require_writable(insn.dst)
    return _statement(insn, f"{{dst}} = {text}", value)


def _neg(insn: Insn, bits: int) -> Operation:
    if insn.code & op.X:
        raise _unknown(insn)
    _require_zero("NEG", insn.src, insn.off, insn.imm)
    _require_writable(insn.dst)
    return _statement(insn, f"{{dst}} = -{{dst}} & {U64 if bits == 64 else U32}")


def _end(insn: Insn) -> Operation:
    _require_zero("END", insn.src, insn.off)
    if insn.code == op.ALU64 | op.END | op.X:
        raise _unknown(insn)
    text = alu.byte_order_text(insn.code, insn.imm, "{dst}")
    if text is None:
        raise _reserved("END")
    _require_writable(insn.dst)
    return _statement(insn, f"{{dst}} = {text}")


def _ld(insn: Insn) -> Operation:
    """Refuse the loads of class LD that no SYSCALL program has; ld_imm64 is `_ld_imm64`."""
    if insn.code & _MODE in (op.ABS, op.IND):
        raise Trap("BPF_LD_[ABS|IND] instructions not allowed for this program type")
    raise _unknown(insn)


def _ld_imm64(insn: Insn, second: Insn | None) -> Operation:
    """Decode ld_imm64, whose value is already an absolute one, whatever its pseudo source."""
    if second is None or any(second[:4]):
        raise Trap("invalid bpf_ld_imm64 insn", scope=Scope.EVERYWHERE)
    if insn.off:
        raise Trap("BPF_LD_IMM64 uses reserved fields", scope=Scope.EVERYWHERE)
    _require_writable(insn.dst)
    value = (second.imm & U32) << 32 | insn.imm & U32
    return _statement(insn, "{dst} = {value}", value)._replace(slots=2)


def _ldx(insn: Insn) -> Operation:
    mode = insn.code & _MODE
    size = op.ACCESS_BYTES[insn.code & _SIZE]
    if mode not in (op.MEM, op.MEMSX) or (mode == op.MEMSX and size == 8):
        raise _unknown(insn)
    if insn.imm:
        raise Trap("BPF_LDX uses reserved fields", scope=Scope.EVERYWHERE)
    return _load(insn, size, sign_extend=mode == op.MEMSX)


def _load(insn: Insn, size: int, *, sign_extend: bool = False) -> Operation:
    _require_writable(insn.dst)
    text = f"signed({{loaded}}, {8 * size}) & {U64}" if sign_extend else "{loaded}"
    return _statement(insn, f"{{dst}} = {text}", size=size)


def _st(insn: Insn) -> Operation:
    if insn.code & _MODE != op.MEM:
        raise _unknown(insn)
    _require_zero("ST", insn.src)
    return _store(insn, "{value}", insn.imm & U64)


def _stx(insn: Insn) -> Operation:
    mode = insn.code & _MODE
    if mode == op.ATOMIC:
        return _atomic(insn)
    if mode != op.MEM:
        raise _unknown(insn)
    _require_zero("STX", insn.imm)
    return _store(insn, "{src}")


def _store(insn: Insn, stored: str, value: int = 0) -> Operation:
    size = op.ACCESS_BYTES[insn.code & _SIZE]
    return Operation(Form.STORE, stored, insn.dst, insn.src, insn.off, value, size)


def _atomic(insn: Insn) -> Operation:
    operation = insn.imm
    size = op.ACCESS_BYTES[insn.code & _SIZE]
    if operation == op.LOAD_ACQ:
        return _load(insn, size)
    if operation == op.STORE_REL:
        return _store(insn, "{src}")
    mask = (1 << 8 * size) - 1
    new = alu.atomic_text(operation, f"({{src}} & {mask})", f"{{r0}} & {mask}")
    if new is None:
        raise Trap(f"BPF_ATOMIC uses invalid atomic opcode {operation & U32:02x}")
    if size < 4:
        raise Trap("invalid atomic operand size")
    text = f"old = memory.load({{dst}} + {{off}}, {size})"
    text += f"; memory.store({{dst}} + {{off}}, {size}, {new})"
    if operation & op.FETCH:
        fetched, name = (0, "{r0}") if operation == op.CMPXCHG else (insn.src, "{src}")
        _require_writable(fetched)
        text += f"; {name} = old"
    return _statement(insn, text)


def _jump(insn: Insn) -> Operation:
    bits = 64 if insn.insn_class == op.JMP else 32
    operation = insn.code & _OPERATION
    if alu.condition_text(operation, bits, "", "") is None:
        raise _unknown(insn)
    a, b, value = _operands(insn, "JMP/JMP32", bits)
    text = alu.condition_text(operation, bits, a, b)
    assert text is not None  # noqa: S101 - asked above
    return Operation(Form.CONDITION, text, insn.dst, insn.src, 0, value, displacement=insn.off)


def _goto(insn: Insn) -> Operation:
    """Decode both unconditional jumps: by `off`, and by `imm` where 16 bits are too few."""
    displacement, unused = (
        (insn.off, insn.imm) if insn.insn_class == op.JMP else (insn.imm, insn.off)
    )
    _require_zero("JA", insn.dst, insn.src, unused)
    return Operation(Form.CONDITION, ALWAYS, displacement=displacement)


def _may_goto(insn: Insn) -> Operation:
    """Decode the jump that leaves a loop once the frame has looped often enough."""
    if insn.dst or insn.src or insn.imm:
        raise Trap(f"invalid may_goto imm {insn.imm}", scope=Scope.FIELDS)
    text = "processor.has_looped_enough()"
    return Operation(Form.CONDITION, text, displacement=insn.off)


def _call(insn: Insn) -> Operation:
    _, _, source, off, number = insn
    _require_zero("CALL", insn.dst)
    if source != op.PSEUDO_KFUNC_CALL:  # there, `off` chooses the BTF of a module
        _require_zero("CALL", off)
    if source == op.PSEUDO_CALL:
        return Operation(Form.CONTROL, "processor.enter({target}, {after})", displacement=number)
    if source not in (0, op.PSEUDO_KFUNC_CALL):
        raise _reserved("CALL")
    text = f"processor.call({source}, {{value}}, {{after}})"
    return Operation(Form.CONTROL, text, value=number)


def _callx(insn: Insn) -> Operation:
    """Refuse the call through a register, which no kernel takes (section 4.3.1)."""
    raise _unknown(insn)


def _exit(insn: Insn) -> Operation:
    """Decode exit, whose `off` no kernel looks at (measured on Linux 6.18.44)."""
    _require_zero("EXIT", insn.dst, insn.src, insn.imm)
    return Operation(Form.CONTROL, "processor.leave()")


_Decoder = Callable[[Insn], Operation]

_CONTROL: Final[dict[int, _Decoder]] = {
    op.JMP | op.JA: _goto,
    op.JMP32 | op.JA: _goto,
    op.JMP | op.JCOND: _may_goto,
    op.JMP | op.CALL: _call,
    op.JMP | op.CALL | op.X: _callx,
    op.JMP | op.EXIT: _exit,
}

_CLASSES: Final[dict[int, _Decoder]] = {
    op.LD: _ld,
    op.LDX: _ldx,
    op.ST: _st,
    op.STX: _stx,
    op.ALU: _alu,
    op.JMP: _jump,
    op.JMP32: _jump,
    op.ALU64: _alu,
}
