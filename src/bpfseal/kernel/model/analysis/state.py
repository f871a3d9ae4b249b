"""The state of a path through a program: what each register and stack slot of each frame holds.

States are copied at every branch, so a copy shares the stack until one of the two writes to it.

Example:
    >>> state = State([Frame()])
    >>> state.registers[10].kind
    <PointerKind.STACK: 'fp'>
"""

from __future__ import annotations

from collections.abc import Callable

from bpfseal.kernel.model.analysis.arithmetic import linked
from bpfseal.kernel.model.analysis.scalar import Scalar
from bpfseal.kernel.model.analysis.values import EMPTY_SLOT, Pointer, PointerKind, Slot, Value
from bpfseal.kernel.model.processor import FRAME_POINTER, REGISTER_COUNT


class Node:
    """A step of a path: an insn that was looked at.

    Attributes:
        before: the step before it, since a state was remembered last; ``None`` for the first.
        index: the insn.
        note: the stack slot that a spilled value was written to or read from, or what was tied to
            the operands of a jump, as keys of `bpfseal.kernel.model.analysis.precision`.
        sought: what was sought in the steps before this one already, as such keys.
    """

    __slots__ = ("before", "index", "note", "sought")

    def __init__(self, before: Node | None, index: int) -> None:
        self.before = before
        self.index = index
        self.note: int | tuple[int, ...] | None = None
        self.sought: int | set[int] | None = None


class Frame:
    """A call frame.

    Attributes:
        registers: what r0 to r10 hold.
        stack: the slots that were written, by index; slot 0 is the one just below r10.
        call_site: the index of the call that opened the frame.
        start: the first insn of its function.
        is_callback: a helper called the function.
        scrubbed: the registers, as bits, that had a value until a call took it away.
        callback_depth: how often in a row the call that the frame is at has called its function.
    """

    __slots__ = (
        "_is_shared",
        "call_site",
        "callback_depth",
        "is_callback",
        "registers",
        "scrubbed",
        "stack",
        "start",
    )

    def __init__(
        self, number: int = 0, call_site: int = -1, start: int = 0, *, is_callback: bool = False
    ) -> None:
        self.registers: list[Value] = [None] * REGISTER_COUNT
        self.registers[FRAME_POINTER] = Pointer(PointerKind.STACK, frame=number)
        self.stack: dict[int, Slot] = {}
        self.call_site = call_site
        self.start = start
        self.is_callback = is_callback
        self.callback_depth = 0
        self.scrubbed = 0
        self._is_shared = False

    def copy(self) -> Frame:
        """Return a copy that shares the stack until it is written to."""
        made = Frame.__new__(Frame)
        made.registers = self.registers.copy()
        made.stack = self.stack
        made.call_site = self.call_site
        made.start = self.start
        made.is_callback = self.is_callback
        made.callback_depth = self.callback_depth
        made.scrubbed = self.scrubbed
        made._is_shared = self._is_shared = True  # noqa: SLF001 - a copy of its own kind
        return made

    def scrub(self) -> None:
        """Take away what a call leaves nothing of: r0 to r5."""
        registers = self.registers
        for number in range(6):
            if registers[number] is not None:
                registers[number] = None
                self.scrubbed |= 1 << number

    def slot(self, index: int) -> Slot:
        """Return a stack slot."""
        return self.stack.get(index, EMPTY_SLOT)

    def set_slot(self, index: int, slot: Slot) -> None:
        """Write a stack slot."""
        if self._is_shared:
            self.stack = self.stack.copy()
            self._is_shared = False
        self.stack[index] = slot


class State:
    """The state of a path.

    Attributes:
        frames: the call frames, the current one last.
        index: the insn that a remembered state was remembered at.
        history: the steps of the path since then, the last one first.
        precise: what a remembered state's numbers were that paths depended on, as keys.
        loop_entry: the first of the remembered states, not finished yet, that a path which went
            through this one was held against.
        parent: the remembered state that the path has come through last.
        branches: paths that go on from a remembered state and have not ended.
        hits: how many paths were like it and ended there.
        misses: how many were not.
        depth: how many states were remembered before this one on its path.
        may_gotos: how often the path has passed a may_goto insn.
        unrolls: how many callbacks the path has begun.
        references: what the path must still give back: the id, and the insn that got it.
    """

    __slots__ = (
        "branches",
        "depth",
        "frames",
        "history",
        "hits",
        "index",
        "loop_entry",
        "may_gotos",
        "misses",
        "parent",
        "precise",
        "references",
        "unrolls",
    )

    def __init__(self, frames: list[Frame]) -> None:
        self.frames = frames
        self.index = 0
        self.depth = 0
        self.history: Node | None = None
        self.precise: set[int] = set()
        self.loop_entry: State | None = None
        self.parent: State | None = None
        self.unrolls = 0
        self.branches = 1
        self.hits = 0
        self.misses = 0
        self.may_gotos = 0
        self.references: tuple[tuple[int, int], ...] = ()

    @property
    def frame(self) -> Frame:
        """The current frame."""
        return self.frames[-1]

    @property
    def registers(self) -> list[Value]:
        """The registers of the current frame."""
        return self.frames[-1].registers

    def copy(self) -> State:
        """Return a copy of its own."""
        made = State([frame.copy() for frame in self.frames])
        made.history = self.history
        made.parent = self.parent
        made.unrolls = self.unrolls
        made.may_gotos = self.may_gotos
        made.references = self.references
        return made

    def give_back(self, reference: int) -> None:
        """Forget something that had to be given back."""
        self.references = tuple(each for each in self.references if each[0] != reference)

    def replace_values(self, change: Callable[[Value], Value]) -> None:
        """Pass every register and every spilled value of every frame through `change`."""
        for frame in self.frames:
            registers = frame.registers
            for number, value in enumerate(registers):
                if value is not None:
                    registers[number] = change(value)
            for index, slot in list(frame.stack.items()):
                if slot.spilled is not None:
                    changed = change(slot.spilled)
                    if changed is not slot.spilled:
                        frame.set_slot(index, slot._replace(spilled=changed))

    def set_equal_scalars(self, known: Scalar) -> None:
        """Give every register that is tied to `known` what is known of it."""
        if not known.id:
            return
        self.replace_values(
            lambda value: (
                linked(value, known)
                if isinstance(value, Scalar) and value.id == known.id
                else value
            )
        )
