"""Instructions as functions: what each does to a processor (RFC 9669, sections 4 and 5).

`decode` reads an insn once and returns a `Step`, a function that does it. An insn that is malformed
whatever the registers hold is refused here, as the verifier refuses it at load: an unknown opcode,
a reserved field in use, a jump that leads nowhere, a write to the frame pointer.

Example:
    >>> insns = (mov64_imm(0, 7), exit_insn())
    >>> step = decode(insns, 0, insn_starts(insns))
    >>> processor = Processor(Memory(), lambda source, number, arguments: 0)
    >>> step(processor)
    >>> processor.registers[0]
    7
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from errno import EACCES
from typing import Final, NamedTuple

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn
from bpfseal.kernel.model import alu
from bpfseal.kernel.model.processor import FRAME_POINTER, REGISTER_COUNT, Processor, Trap

U32: Final = (1 << 32) - 1
U64: Final = (1 << 64) - 1

Step = Callable[[Processor], None]
"""Does one insn. The program counter already points to the next slot."""

_SIZE = 0x18
_MODE = 0xE0
_OPERATION = 0xF0


def insn_starts(insns: Sequence[Insn]) -> frozenset[int]:
    """Return the indices at which an insn starts: all but the second slots of ld_imm64."""
    starts = []
    index = 0
    while index < len(insns):
        starts.append(index)
        index += 2 if insns[index].is_ld_imm64 else 1
    return frozenset(starts)


def decode(insns: Sequence[Insn], index: int, starts: AbstractSet[int]) -> Step:
    """Return what the insn at `index` does.

    Args:
        insns: the whole program.
        index: where the insn starts.
        starts: where insns start, as `insn_starts` gives it.

    Raises:
        Trap: if no kernel would load this insn.
    """
    place = _Place(insns, index, starts)
    insn = insns[index]
    if max(insn.dst, insn.src) >= REGISTER_COUNT:
        raise Trap(f"R{max(insn.dst, insn.src)} is invalid")
    decoder = _CONTROL.get(insn.code) or _CLASSES[insn.insn_class]
    return decoder(insn, place)


class _Place(NamedTuple):
    """Where an insn stands: what jumps, calls and ld_imm64 need to know."""

    insns: Sequence[Insn]
    position: int
    starts: AbstractSet[int]

    def target(self, displacement: int) -> int:
        """Return the index that a jump by `displacement` leads to."""
        target = self.position + 1 + displacement
        if not 0 <= target < len(self.insns):
            raise Trap(f"jump out of range from insn {self.position} to {target}")
        if target not in self.starts:
            raise Trap(f"jump into the middle of ldimm64 insn {target - 1}")
        return target


_Decoder = Callable[[Insn, _Place], Step]


def _unknown(insn: Insn) -> Trap:
    return Trap(f"unknown opcode {insn.code:02x}")


def _reserved(name: str) -> Trap:
    return Trap(f"BPF_{name} uses reserved fields")


def _require_zero(name: str, *fields: int) -> None:
    """Refuse a reserved field that is in use (RFC 9669, section 3.1)."""
    if any(fields):
        raise _reserved(name)


def _require_writable(register: int) -> None:
    """Refuse a write to r10 (check_reg_arg in kernel/bpf/verifier.c)."""
    if register == FRAME_POINTER:
        raise Trap("frame pointer is read only", EACCES)


def _check_operand(name: str, insn: Insn) -> bool:
    """Return whether the second operand is a register, not `imm`; the other field is zero."""
    is_register = bool(insn.code & op.X)
    _require_zero(name, insn.imm if is_register else insn.src)
    return is_register


def _alu(insn: Insn, _place: _Place) -> Step:
    _require_writable(insn.dst)
    operation = insn.code & _OPERATION
    if operation == op.NEG:
        return _neg(insn)
    if operation == op.END:
        return _end(insn)
    bits, mask = (64, U64) if insn.insn_class == op.ALU64 else (32, U32)
    name = "MOV" if operation == op.MOV else "ALU"
    compute = alu.binary(operation, insn.off, bits)
    if alu.binary(operation, 0, bits) is None:
        raise _unknown(insn)
    if compute is None or (operation == op.MOV and insn.off and not insn.code & op.X):
        raise _reserved(name)
    is_register = _check_operand(name, insn)
    _, dst, src, off, imm = insn
    value = imm & mask
    # One function for each form: this is where programs spend their time.
    if is_register and operation == op.MOV and not off:

        def step(processor: Processor) -> None:
            registers = processor.registers
            registers[dst] = registers[src] & mask

    elif is_register:

        def step(processor: Processor) -> None:
            registers = processor.registers
            registers[dst] = compute(registers[dst] & mask, registers[src] & mask) & mask

    elif operation == op.MOV:

        def step(processor: Processor) -> None:
            processor.registers[dst] = value

    else:

        def step(processor: Processor) -> None:
            registers = processor.registers
            registers[dst] = compute(registers[dst] & mask, value) & mask

    return step


def _neg(insn: Insn) -> Step:
    if insn.code & op.X:
        raise _unknown(insn)
    _require_zero("NEG", insn.src, insn.off, insn.imm)
    dst = insn.dst
    mask = U64 if insn.insn_class == op.ALU64 else U32

    def step(processor: Processor) -> None:
        processor.registers[dst] = -processor.registers[dst] & mask

    return step


def _end(insn: Insn) -> Step:
    _require_zero("END", insn.src, insn.off)
    if insn.code == op.ALU64 | op.END | op.X:
        raise _unknown(insn)
    compute = alu.byte_order(insn.code, insn.imm)
    if compute is None:
        raise _reserved("END")
    dst = insn.dst

    def step(processor: Processor) -> None:
        processor.registers[dst] = compute(processor.registers[dst])

    return step


def _ld(insn: Insn, place: _Place) -> Step:
    """Decode ld_imm64, whose value is already an absolute one, whatever its pseudo source."""
    mode = insn.code & _MODE
    if mode in (op.ABS, op.IND):
        raise Trap("BPF_LD_[ABS|IND] instructions not allowed for this program type")
    if not insn.is_ld_imm64:
        raise _unknown(insn)
    _require_writable(insn.dst)
    _require_zero("LD_IMM64", insn.off)
    after = place.position + 2
    if after > len(place.insns) or any(place.insns[after - 1][:4]):
        raise Trap("invalid bpf_ld_imm64 insn")
    second = place.insns[after - 1]
    dst = insn.dst
    value = (second.imm & U32) << 32 | insn.imm & U32

    def step(processor: Processor) -> None:
        processor.registers[dst] = value
        processor.pc = after

    return step


def _ldx(insn: Insn, _place: _Place) -> Step:
    mode = insn.code & _MODE
    size = op.ACCESS_BYTES[insn.code & _SIZE]
    if mode not in (op.MEM, op.MEMSX) or (mode == op.MEMSX and size == 8):
        raise _unknown(insn)
    _require_zero("LDX", insn.imm)
    return _load(insn, size, sign_extend=mode == op.MEMSX)


def _load(insn: Insn, size: int, *, sign_extend: bool = False) -> Step:
    _require_writable(insn.dst)
    _, dst, src, off, _ = insn
    bits = 8 * size

    def step(processor: Processor) -> None:
        registers = processor.registers
        value = processor.memory.load(registers[src] + off & U64, size)
        registers[dst] = alu.signed(value, bits) & U64 if sign_extend else value

    return step


def _st(insn: Insn, _place: _Place) -> Step:
    if insn.code & _MODE != op.MEM:
        raise _unknown(insn)
    _require_zero("ST", insn.src)
    _, dst, _, off, imm = insn
    size = op.ACCESS_BYTES[insn.code & _SIZE]

    def step(processor: Processor) -> None:
        processor.memory.store(processor.registers[dst] + off & U64, size, imm)

    return step


def _stx(insn: Insn, _place: _Place) -> Step:
    mode = insn.code & _MODE
    if mode == op.ATOMIC:
        return _atomic(insn)
    if mode != op.MEM:
        raise _unknown(insn)
    _require_zero("STX", insn.imm)
    return _store(insn, op.ACCESS_BYTES[insn.code & _SIZE])


def _store(insn: Insn, size: int) -> Step:
    _, dst, src, off, _ = insn

    def step(processor: Processor) -> None:
        registers = processor.registers
        processor.memory.store(registers[dst] + off & U64, size, registers[src])

    return step


def _atomic(insn: Insn) -> Step:
    _, dst, src, off, operation = insn
    size = op.ACCESS_BYTES[insn.code & _SIZE]
    if operation == op.LOAD_ACQ:
        return _load(insn, size)
    if operation == op.STORE_REL:
        return _store(insn, size)
    compute = alu.atomic(operation)
    if size < 4:
        raise Trap(f"unknown opcode {insn.code:02x}")
    if compute is None:
        raise Trap(f"BPF_ATOMIC uses invalid atomic opcode {operation & U32:02x}")
    mask = (1 << 8 * size) - 1
    fetched: int | None = None  # the register that gets the old value
    if operation & op.FETCH:
        fetched = 0 if operation == op.CMPXCHG else src
        _require_writable(fetched)

    def step(processor: Processor) -> None:
        registers, memory = processor.registers, processor.memory
        address = registers[dst] + off & U64
        old = memory.load(address, size)
        memory.store(address, size, compute(old, registers[src] & mask, registers[0] & mask))
        if fetched is not None:
            registers[fetched] = old

    return step


def _jump(insn: Insn, place: _Place) -> Step:
    bits, mask = (64, U64) if insn.insn_class == op.JMP else (32, U32)
    holds = alu.condition(insn.code & _OPERATION, bits)
    if holds is None:
        raise _unknown(insn)
    is_register = _check_operand("JMP/JMP32", insn)
    target = place.target(insn.off)
    _, dst, src, _, imm = insn
    value = imm & mask
    if is_register:

        def step(processor: Processor) -> None:
            registers = processor.registers
            if holds(registers[dst] & mask, registers[src] & mask):
                processor.pc = target

    else:

        def step(processor: Processor) -> None:
            if holds(processor.registers[dst] & mask, value):
                processor.pc = target

    return step


def _goto(insn: Insn, place: _Place) -> Step:
    """Decode both unconditional jumps: by `off`, and by `imm` where 16 bits are too few."""
    if insn.insn_class == op.JMP:
        _require_zero("JA", insn.dst, insn.src, insn.imm)
        target = place.target(insn.off)
    else:
        _require_zero("JA", insn.dst, insn.src, insn.off)
        target = place.target(insn.imm)

    def step(processor: Processor) -> None:
        processor.pc = target

    return step


def _may_goto(insn: Insn, place: _Place) -> Step:
    """Decode the jump that leaves a loop once the frame has looped often enough."""
    _require_zero("JCOND", insn.dst, insn.src, insn.imm)
    target = place.target(insn.off)

    def step(processor: Processor) -> None:
        frame = processor.frames[-1]
        if frame.loops_left:
            frame.loops_left -= 1
        else:
            processor.pc = target

    return step


def _call(insn: Insn, place: _Place) -> Step:
    _, _, source, off, number = insn
    _require_zero("CALL", insn.dst)
    if source != op.PSEUDO_KFUNC_CALL:  # there, `off` chooses the BTF of a module
        _require_zero("CALL", off)
    if source == op.PSEUDO_CALL:
        target = place.target(number)
        return lambda processor: processor.enter(target)
    if source not in (0, op.PSEUDO_KFUNC_CALL):
        raise _reserved("CALL")

    def step(processor: Processor) -> None:
        registers = processor.registers
        registers[0] = processor.call_out(source, number, registers[1:6]) & U64

    return step


def _callx(insn: Insn, _place: _Place) -> Step:
    """Refuse the call through a register, which no kernel takes (section 4.3.1)."""
    raise _unknown(insn)


def _exit(insn: Insn, _place: _Place) -> Step:
    _require_zero("EXIT", *insn[1:])
    return Processor.leave


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
