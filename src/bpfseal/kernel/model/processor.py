"""The state of one run of a program: registers and call frames.

Example:
    >>> processor = Processor(Memory(), lambda source, number, arguments: 0)
    >>> processor.enter(target=3, return_to=0)
    3
    >>> processor.memory.load(processor.registers[10] - 8, 8)
    0
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from enum import Enum
from errno import EINVAL
from functools import partial
from typing import Final, NamedTuple

from bpfseal.errors import BpfsealError
from bpfseal.kernel.model.memory import Memory, Region

FRAME_POINTER: Final = 10
"""The register that points behind the stack of the current frame."""

REGISTER_COUNT: Final = 11
"""r0 to r10."""

STACK_SIZE: Final = 512
"""Bytes of the stack of a frame, MAX_BPF_STACK (include/linux/filter.h)."""

MAX_CALL_FRAMES: Final = 16
"""Depth of calls with the main program (include/linux/bpf_verifier.h of 7.2). The verifier of an
earlier release allows less."""

MAX_LOOPS: Final = 2 * 0xFFFF
"""How often the may_goto insns of a frame fall through. A kernel asks its clock after each
BPF_MAX_TIMED_LOOPS of 0xFFFF (include/linux/bpf.h) and goes on for 250 ms, or ends after 8 million
(6.12); the model's clock has run out when it is asked again."""

_U64: Final = (1 << 64) - 1
_FIRST_SAVED: Final = 6
"""r6 to r10 are restored when a call returns (Documentation/bpf/standardization/abi.rst)."""


class Callback(NamedTuple):
    """A call of a function of the program by a helper.

    Attributes:
        target: the first insn of the function.
        arguments: what it finds in r1 to r5.
    """

    target: int
    arguments: tuple[int, int, int, int, int]


Callbacks = Generator[Callback, int, int]
"""A helper that calls functions of the program: it gives each call, gets what r0 then is, and
returns its own result."""

CallOut = Callable[[int, int, Sequence[int]], "int | Callbacks"]
"""Calls a function outside the program: pseudo source, number, r1 to r5; returns r0."""


class RunEnded(Exception):  # noqa: N818 - nothing went wrong
    """The main program has exited."""


class Scope(Enum):
    """Where a kernel looks for what is wrong with an insn."""

    EVERYWHERE = "wherever it stands"
    FIELDS = "wherever it stands from Linux 7.1 on, before where a path leads"
    PATH = "where a path leads"


class Trap(BpfsealError):  # noqa: N818 (as processors call it)
    """What stops a program: raised by an insn or a helper, which do not know where they are.

    Attributes:
        errno: what a kernel answers at load to a program with such an insn.
        scope: where a kernel looks for it.
    """

    def __init__(self, message: str, errno: int = EINVAL, scope: Scope = Scope.PATH) -> None:
        super().__init__(message)
        self.errno = errno
        self.scope = scope


@dataclass(slots=True)
class Frame:
    """A call frame.

    Attributes:
        stack: the frame's own memory.
        return_to: the insn that the caller goes on with.
        saved: r6 to r10 of the caller.
        callbacks: the helper that called, ``None`` for a call by the program.
        loops_left: how often may_goto still falls through.
    """

    stack: Region
    return_to: int
    saved: list[int]
    callbacks: Callbacks | None = None
    loops_left: int = MAX_LOOPS


class Processor:
    """Registers and frames, and what an insn can reach.

    Attributes:
        memory: what loads and stores go to.
        call_out: calls a helper or a kfunc.
        registers: r0 to r10, unsigned 64-bit.
        frames: the call frames, the current one last.
    """

    __slots__ = ("call_out", "frames", "memory", "registers")

    def __init__(self, memory: Memory, call_out: CallOut) -> None:
        self.memory = memory
        self.call_out = call_out
        self.registers = [0] * REGISTER_COUNT
        self.frames: list[Frame] = []

    def enter(self, target: int, return_to: int, callbacks: Callbacks | None = None) -> int:
        """Open a frame with a fresh stack and return `target`, where it goes on.

        Raises:
            Trap: if all frames are in use.
        """
        if len(self.frames) == MAX_CALL_FRAMES:
            raise Trap(f"call deeper than {MAX_CALL_FRAMES} frames")
        stack = self.memory.map("stack", bytearray(STACK_SIZE))
        self.frames.append(Frame(stack, return_to, self.registers[_FIRST_SAVED:], callbacks))
        self.registers[FRAME_POINTER] = stack.base + STACK_SIZE
        return target

    def leave(self) -> int:
        """Close the current frame and return where its caller goes on.

        Raises:
            RunEnded: if it was the last one.
        """
        frame = self.frames.pop()
        self.memory.unmap(frame.stack)
        self.registers[_FIRST_SAVED:] = frame.saved
        if frame.callbacks is not None:
            callbacks = frame.callbacks
            return self._go_on(
                callbacks, partial(callbacks.send, self.registers[0]), frame.return_to
            )
        if not self.frames:
            raise RunEnded
        return frame.return_to

    def call(self, source: int, number: int, return_to: int) -> int:
        """Call a helper or a kfunc and return where the program goes on."""
        answer = self.call_out(source, number, self.registers[1:6])
        if not isinstance(answer, int):
            return self._go_on(answer, answer.__next__, return_to)
        self.registers[0] = answer & _U64
        return return_to

    def _go_on(self, callbacks: Callbacks, ask: Callable[[], Callback], return_to: int) -> int:
        """Go on with a helper that calls functions, until it has no more to call."""
        try:
            called = ask()
        except StopIteration as end:
            self.registers[0] = end.value & _U64
            return return_to
        target = self.enter(called.target, return_to, callbacks)
        self.registers[1:6] = called.arguments
        return target

    def has_looped_enough(self) -> bool:
        """Count a may_goto, and return whether it jumps."""
        frame = self.frames[-1]
        if not frame.loops_left:
            return True
        frame.loops_left -= 1
        return False

    def unwind(self) -> None:
        """Free the stacks of all frames: the run has ended, wherever it was."""
        while self.frames:
            frame = self.frames.pop()
            self.memory.unmap(frame.stack)
            if frame.callbacks is not None:
                frame.callbacks.close()
