"""The state of one run of a program: registers, program counter and call frames.

Example:
    >>> processor = Processor(Memory(), lambda source, number, arguments: 0)
    >>> processor.enter(0)
    >>> processor.memory.load(processor.registers[10] - 8, 8)
    0
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from errno import EINVAL
from typing import Final

from bpfseal.errors import BpfsealError
from bpfseal.kernel.model.memory import Memory, Region

FRAME_POINTER: Final = 10
"""The register that points behind the stack of the current frame."""

REGISTER_COUNT: Final = 11
"""r0 to r10."""

STACK_SIZE: Final = 512
"""Bytes of the stack of a frame, MAX_BPF_STACK (include/linux/filter.h)."""

MAX_CALL_FRAMES: Final = 8
"""Depth of calls with the main program (include/linux/bpf_verifier.h)."""

MAX_LOOPS: Final = 0xFFFF
"""How often the may_goto insns of a frame fall through, BPF_MAX_TIMED_LOOPS
(include/linux/bpf.h): the kernel asks its clock after so many, the model ends the loop."""

_FIRST_SAVED: Final = 6
"""r6 to r10 are restored when a call returns (Documentation/bpf/standardization/abi.rst)."""

CallOut = Callable[[int, int, Sequence[int]], int]
"""Calls a function outside the program: pseudo source, number, r1 to r5; returns r0."""


class Trap(BpfsealError):  # noqa: N818 (as processors call it)
    """What stops a program: raised by an insn or a helper, which do not know where they are.

    Attributes:
        errno: what a kernel answers at load to a program with such an insn.
    """

    def __init__(self, message: str, errno: int = EINVAL) -> None:
        super().__init__(message)
        self.errno = errno


@dataclass(slots=True)
class Frame:
    """A call frame.

    Attributes:
        stack: the frame's own memory.
        return_to: the insn that the caller goes on with.
        saved: r6 to r10 of the caller.
        loops_left: how often may_goto still falls through.
    """

    stack: Region
    return_to: int
    saved: list[int]
    loops_left: int = MAX_LOOPS


class Processor:
    """Registers, program counter and frames, and what an insn can reach.

    Attributes:
        memory: what loads and stores go to.
        call_out: calls a helper or a kfunc.
        registers: r0 to r10, unsigned 64-bit.
        pc: index of the insn that comes next.
        frames: the call frames, the current one last.
    """

    __slots__ = ("call_out", "frames", "memory", "pc", "registers")

    def __init__(self, memory: Memory, call_out: CallOut) -> None:
        self.memory = memory
        self.call_out = call_out
        self.registers = [0] * REGISTER_COUNT
        self.pc = 0
        self.frames: list[Frame] = []

    def enter(self, target: int) -> None:
        """Open a frame with a fresh stack and go on at `target`.

        Raises:
            Trap: if all frames are in use.
        """
        if len(self.frames) == MAX_CALL_FRAMES:
            raise Trap(f"call deeper than {MAX_CALL_FRAMES} frames")
        stack = self.memory.map("stack", bytearray(STACK_SIZE))
        self.frames.append(Frame(stack, self.pc, self.registers[_FIRST_SAVED:]))
        self.registers[FRAME_POINTER] = stack.base + STACK_SIZE
        self.pc = target

    def leave(self) -> None:
        """Close the current frame, free its stack and go on in the caller."""
        frame = self.frames.pop()
        self.memory.unmap(frame.stack)
        self.registers[_FIRST_SAVED:] = frame.saved
        self.pc = frame.return_to
