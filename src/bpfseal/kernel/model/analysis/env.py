"""What the verifier works on: the program, the path that it follows, and what it has found out.

Example:
    >>> env.read_register(1).kind
    <PointerKind.CTX: 'ctx'>
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from errno import E2BIG, EACCES, EINVAL

from bpfseal.bpf.insn import Insn
from bpfseal.kernel.model.analysis import tnum
from bpfseal.kernel.model.analysis.log import Log
from bpfseal.kernel.model.analysis.map_struct import Field
from bpfseal.kernel.model.analysis.refused import Refused
from bpfseal.kernel.model.analysis.scalar import Scalar
from bpfseal.kernel.model.analysis.state import Frame, State
from bpfseal.kernel.model.analysis.values import Pointer, PointerKind, Value
from bpfseal.kernel.model.kernel_btf import KernelBtf
from bpfseal.kernel.model.processor import FRAME_POINTER, Trap
from bpfseal.kernel.model.profile import Profile
from bpfseal.kernel.model.program import MapReference
from bpfseal.kernel.model.rights import Rights
from bpfseal.kernel.model.verifier_facts import VerifierFacts


@dataclass(eq=False)
class Env:
    """A program under verification.

    Attributes:
        insns: the insns with kfunc calls resolved.
        references: the maps that ld_imm64 insns refer to, by index.
        profile: the kernel.
        btf: the kernel's own BTF.
        is_gpl: the program's licence is compatible with the GPL.
        rights: what the process that loads may do.
        functions: whether each function is static, by its first insn; empty without func_info.
        malformed: what is wrong with insns, by index.
        log: the verifier's log.
        map_fields: returns the fields of ``struct bpf_map``.
        patience: units of work (`bpfseal.kernel.model.work`) that the model is willing to do.
        state: the state of the path that is being followed.
        index: the insn that is being looked at.
        stack_depths: bytes of stack that each function uses, by its first insn.
        max_ctx_offset: the end of the part of the context that the program uses.
        pointer_kinds: the kind of pointer that each load or store was seen with.
        missing_kfuncs: the calls of kfuncs which the kernel lacks that a path leads to.
        strict_alignment: every access must be aligned (BPF_F_STRICT_ALIGNMENT).
    """

    insns: tuple[Insn, ...]
    references: Mapping[int, MapReference]
    profile: Profile
    btf: KernelBtf
    is_gpl: bool
    rights: Rights
    functions: Mapping[int, bool]
    malformed: Mapping[int, Trap]
    log: Log
    map_fields: Callable[..., tuple[Field, ...]]
    patience: int
    state: State = field(default_factory=lambda: State([Frame()]))
    index: int = 0
    stack_depths: dict[int, int] = field(default_factory=dict)
    max_ctx_offset: int = 0
    last_id: int = 0
    pointer_kinds: dict[int, PointerKind] = field(default_factory=dict)
    missing_kfuncs: set[int] = field(default_factory=set)
    strict_alignment: bool = False

    @property
    def facts(self) -> VerifierFacts:
        """What the kernel's verifier does otherwise than others."""
        return self.profile.verifier

    def fresh_id(self) -> int:
        """Return an id that no value has."""
        self.last_id += 1
        return self.last_id

    def tied(self, register: int, value: Scalar) -> Scalar:
        """Give a number in a register an id, for its copies to have.

        What is a constant more than another number is tied to that no longer.

        Source: ``assign_scalar_id_before_mov``.
        """
        if not value.mask:
            return value
        if value.delta_bits or not value.id:
            value = value._replace(id=self.fresh_id(), delta=0, delta_bits=0)
            self.state.frames[-1].registers[register] = value
        return value

    def offset_of(self, pointer: Pointer) -> tuple[tuple[int, int], int]:
        """Return the known bits and the constant that a pointer's offset is to the kernel."""
        bits = pointer.variable.tnum
        if self.facts.folds_offsets:
            return tnum.add(bits, (pointer.off & tnum.U64, 0)), 0
        return bits, pointer.off

    def refuse(self, errno: int, function: str, message: str) -> Refused:
        """Return the refusal of the program, to be raised."""
        return Refused(errno, function, message)

    def read_register(self, number: int) -> Scalar | Pointer:
        """Return what a register holds (``check_reg_arg`` with SRC_OP).

        Raises:
            Refused: EACCES, nothing was ever written to it; EINVAL, there is none of this number.
        """
        registers = self.state.frames[-1].registers
        if number >= len(registers):
            raise Refused(EINVAL, "check_reg_arg", f"R{number} is invalid")
        value = registers[number]
        if value is None:
            raise Refused(EACCES, "check_reg_arg", f"R{number} !read_ok")
        return value

    def check_writable(self, number: int) -> None:
        """Check that a register may be written (``check_reg_arg`` with DST_OP).

        Raises:
            Refused: EACCES for the frame pointer.
        """
        if number == FRAME_POINTER:
            raise Refused(EACCES, "check_reg_arg", "frame pointer is read only")

    def check_call_depth(self) -> None:
        """Check that one more function may be called (``setup_func_entry``).

        Raises:
            Refused: E2BIG.
        """
        frames = self.state.frames
        if len(frames) == self.facts.max_call_frames:
            message = f"the call stack of {len(frames) + 1} frames is too deep"
            raise Refused(E2BIG, "setup_func_entry", message)

    def write_register(self, number: int, value: Value) -> None:
        """Let a register hold a value.

        Raises:
            Refused: EACCES for the frame pointer.
        """
        if number == FRAME_POINTER:
            raise Refused(EACCES, "check_reg_arg", "frame pointer is read only")
        self.state.frames[-1].registers[number] = value

    def check_no_leak(self, value: Value, function: str, message: str) -> None:
        """Check that a program of a process without CAP_PERFMON gives no address away.

        Raises:
            Refused: EACCES with a message, if the value is a pointer.
        """
        if isinstance(value, Pointer) and not self.rights.perfmon:
            raise Refused(EACCES, function, message)

    def frame_of(self, pointer: Pointer) -> Frame:
        """Return the frame that a stack pointer points into."""
        return self.state.frames[pointer.frame]

    def note_stack_use(self, pointer: Pointer, off: int) -> None:
        """Note that a function uses its stack down to an offset (``update_stack_depth``)."""
        frame = self.state.frames[pointer.frame]
        if -off > self.stack_depths.get(frame.start, 0):
            self.stack_depths[frame.start] = -off
