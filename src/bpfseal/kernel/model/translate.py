"""Operations as Python functions: one for each insn, and one for each path that is taken often.

A `Step` does one insn. Steps of the same text share their compiled code, so that a program that
runs through once, as loaders do, costs little before it starts. A `Trace` does what many steps
would: it follows a path from the head of a loop, with registers in local variables, until the path
calls, exits or comes to itself. Its text is made of decoded operations alone.

Example:
    >>> code = Code({0: decode(insns, 0, starts), 1: decode(insns, 1, starts)})
    >>> code.steps[0](processor)  # the index that comes next
    1
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, NamedTuple

from bpfseal.kernel.model import alu
from bpfseal.kernel.model.decode import ALWAYS, Form, Operation
from bpfseal.kernel.model.memory import IN_SLOT, LOADS, SLOT_BITS, STORES, MemoryFault
from bpfseal.kernel.model.processor import FRAME_POINTER, REGISTER_COUNT, STACK_SIZE, Processor

HOT: Final = 50
"""A path is translated when its head has run so often: it takes as long as a thousand steps."""

MAX_TRACE: Final = 200
"""Insns of the longest trace."""

Step = Callable[[Processor], int]
"""Does one insn and returns the index of the next."""

_REGISTERS: Final = ", ".join(f"r{number}" for number in range(REGISTER_COUNT))


class Trace(NamedTuple):
    """A translated path.

    Attributes:
        run: follows the path as often as the number of insns that are left allows; returns the
            index that comes next, and how many are left then. An access that faults comes next: its
            step says why.
        size: insns of the whole path; with fewer left, `run` is not to be called.
        exits: where it may go on.
    """

    run: Callable[[Processor, int], tuple[int, int]]
    size: int
    exits: frozenset[int]


class Code:
    """A program as functions.

    Attributes:
        steps: what each insn does, by index. Nothing leads to the second slot of a ld_imm64, which
            has the step of the first.
        traces: the translated paths by the index of their head, ``None`` where there is none.
    """

    def __init__(self, operations: Mapping[int, Operation]) -> None:
        self._operations = operations
        self.steps: list[Step] = []
        self._watched: set[int] = set()
        for index, operation in operations.items():
            self.steps += [_step(operation, index)] * operation.slots
        self.traces: list[Trace | None] = [None] * len(self.steps)
        for index, operation in operations.items():
            if operation.form is Form.CONDITION and operation.target(index) <= index:
                self._watch(operation.target(index))

    def _watch(self, head: int) -> None:
        """Count how often the path that begins at an insn is taken, and translate it in time."""
        if head in self._watched or head not in self._operations:
            return
        self._watched.add(head)
        operation = self._operations[head]
        if operation.form is Form.CONTROL:  # a trace does none: it begins where the call leads
            self._watch(head + 1)
            self._watch(operation.target(head))
            return
        step, runs = self.steps[head], 0

        def count(processor: Processor) -> int:
            nonlocal runs
            runs += 1
            if runs == HOT:
                self.steps[head] = step
                self.traces[head] = trace = _trace(self._operations, head)
                for end in trace.exits:
                    self._watch(end)
            return step(processor)

        self.steps[head] = count


def _step(operation: Operation, index: int) -> Step:
    _, _, dst, src, off, value, size, _, slots = operation
    make = _maker(operation.form, operation.text)
    return make(dst, src, off, value, size, index + slots, operation.target(index))


@lru_cache(maxsize=1024)
def _maker(form: Form, text: str) -> Callable[..., Step]:
    """Return the function that makes the steps of one text, each with its own numbers."""
    named = text.format(
        dst="r[dst]",
        src="r[src]",
        r0="r[0]",
        loaded="memory.load(r[src] + off, size)",
        **{name: name for name in ("off", "value", "after", "target")},
    )
    last = {
        Form.STATEMENT: f"{named}; return after",
        Form.STORE: f"memory.store(r[dst] + off, size, {named}); return after",
        Form.CONDITION: f"return target if {named} else after",
        Form.CONTROL: f"return {named}",
    }[form]
    lines = [
        "def made(dst, src, off, value, size, after, target):",
        " def step(processor):",
        *(["  r = processor.registers"] if "r[" in last else []),
        *(["  memory = processor.memory"] if "memory." in last else []),
        f"  {last}",
        " return step",
    ]
    made: Callable[..., Step] = _compile(lines)
    return made


def _trace(operations: Mapping[int, Operation], head: int) -> Trace:
    """Translate the path from an insn that is no call or exit, where conditions do not hold."""
    body: list[str] = []
    places: list[tuple[int, int]] = []
    exits: set[int] = set()
    done: set[int] = set()
    index = head
    while index not in done and len(done) < MAX_TRACE:
        operation = operations[index]
        if operation.form is Form.CONTROL:
            break
        places.append((index, len(done)))
        done.add(index)
        after, target = index + operation.slots, operation.target(index)
        text = _with_locals(operation)
        if operation.text == ALWAYS:
            text, after = "pass", target
        elif operation.form is Form.CONDITION and target == head:
            text = f"if {text}: left -= {len(done)}; continue"
        elif operation.form is Form.CONDITION:
            text = f"if {text}: left -= {len(done)}; index = {target}; break"
            exits.add(target)
        body.append(text)
        index = after
    body.append(f"left -= {len(done)}")
    if index != head:
        body.append(f"index = {index}; break")
        exits.add(index)
    before = [
        "def made(processor, left):",
        " memory = processor.memory",
        " readable, writable = memory.readable, memory.writable",
        " stack = processor.frames[-1].stack.data",
        f" {_REGISTERS} = processor.registers",
        " try:",
        f"  while left >= {len(done)}:",
    ]
    behind = [
        f"  else: index = {head}",
        " except FAULTS as fault:",
        f"  index, done = places[fault.__traceback__.tb_lineno - {len(before) + 1}]",
        "  left -= done",
        f" processor.registers[:] = {_REGISTERS}",
        " return index, left",
    ]
    run = _compile([*before, *(f"   {text}" for text in body), *behind], places=places)
    return Trace(run, len(done), frozenset(exits))


def _with_locals(operation: Operation) -> str:
    """Return the text of an operation for a trace, where registers are local variables."""
    _, _, dst, src, off, value, size, _, _ = operation
    text = operation.text.format(
        dst=f"r{dst}",
        src=f"r{src}",
        r0="r0",
        off=off,
        value=value,
        loaded=f"load{size}({_address('readable', src, off, size)})[0]",
    )
    if operation.form is Form.STORE:
        mask = (1 << 8 * size) - 1
        return f"store{size}({_address('writable', dst, off, size)}, {text} & {mask})"
    return text


def _address(regions: str, register: int, off: int, size: int) -> str:
    """Return the texts of the bytes that an access goes to and of the offset in them.

    The frame pointer is the same as long as a path stays in a frame, so its offset is known.
    """
    if register == FRAME_POINTER and -STACK_SIZE <= off <= -size:
        return f"stack, {STACK_SIZE + off}"
    return f"{regions}[(at := r{register} + {off}) >> {SLOT_BITS}], at & {IN_SLOT}"


_NAMES: Final[Mapping[str, object]] = {
    **alu.FUNCTIONS,
    **{f"load{size}": load for size, load in LOADS.items()},
    **{f"store{size}": store for size, store in STORES.items()},
    "FAULTS": (KeyError, struct.error, MemoryFault),
}
"""What the texts use."""


def _compile(lines: list[str], **names: object) -> Any:
    """Return the function ``made`` of a text."""
    namespace: dict[str, Any] = {**_NAMES, **names}
    exec("\n".join(lines), namespace)  # noqa: S102 - text of this package, with numbers in it
    return namespace["made"]
