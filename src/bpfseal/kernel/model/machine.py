"""The processor of the kernel model: runs a program on a memory, with helpers and kfuncs.

Example:
    >>> machine = Machine(Memory(), helpers={5: lambda machine, *arguments: 42}, kfuncs={})
    >>> machine.run(Program((call_helper(5), exit_insn()), "answer"), ctx_address=0)
    42
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import Insn
from bpfseal.errors import BpfsealError
from bpfseal.kernel.model.decode import decode, insn_starts
from bpfseal.kernel.model.memory import Memory, MemoryFault
from bpfseal.kernel.model.processor import Callbacks, Processor, RunEnded, Trap
from bpfseal.kernel.model.translate import Code, Step

_LAST = frozenset({op.JMP | op.EXIT, op.JMP | op.JA, op.JMP32 | op.JA})
"""Opcodes that a program may end with (check_subprogs in kernel/bpf/verifier.c)."""


class MachineFault(BpfsealError):  # noqa: N818 (as in `MemoryFault`)
    """A program that the machine cannot decode or cannot go on with.

    Attributes:
        program: the program's name.
        index: the insn at fault.
        reason: what is wrong with it.
        line: the line of source that it is from, ``""`` where that is not known.
    """

    exit_status = 1

    def __init__(self, program: str, index: int, reason: str, line: str = "") -> None:
        place = f"{program}, insn {index}"
        super().__init__(reason, where=f"{place} ({line})" if line else place)
        self.program = program
        self.index = index
        self.reason = reason
        self.line = line


@dataclass(frozen=True)
class Program:
    """A program as it runs, with its relocations done.

    Attributes:
        insns: the insns. A ld_imm64 holds the value itself, and the insn index of a
            BPF_PSEUDO_FUNC; its pseudo source is not looked at any more.
        name: the program's name, for messages.
        lines: the first insn of each line of source, and the line.
    """

    insns: tuple[Insn, ...]
    name: str
    lines: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))

    def line_of(self, index: int) -> str:
        """Return the line of source that an insn is from, ``""`` where that is not known."""
        first = max((start for start in self.lines if start <= index), default=None)
        return "" if first is None else self.lines[first]

    @cached_property
    def code(self) -> Code:
        """The program as functions.

        Raises:
            MachineFault: if an insn is malformed, even one that would never be reached: the
                kernel refuses such a program at load.
        """
        starts = insn_starts(self.insns)
        operations = {}
        for index in sorted(starts):
            try:
                operations[index] = decode(self.insns, index, starts)
            except Trap as trap:
                raise MachineFault(self.name, index, trap.message) from trap
        if not starts or self.insns[max(starts)].code not in _LAST:
            raise MachineFault(self.name, len(self.insns), "the program runs off its end")
        return Code(operations)


HelperFunction = Callable[["Machine", int, int, int, int, int], "int | Callbacks"]
"""A helper or kfunc: takes the machine and r1 to r5, unsigned; the low 64 bits returned are r0."""

Trace = Callable[[int, Insn, list[int]], None]
"""Sees each insn before it is done: its index, the insn, and a copy of r0 to r10."""


class Machine:
    """A machine that runs programs.

    Attributes:
        memory: the address space of programs and helpers.
        helpers: the helpers, by id (`bpfseal.bpf.uapi.Helper`).
        kfuncs: the kfuncs, by the BTF id that the load gave the call.
        budget: how many insns a run may take.
        trace: sees each insn, if there is one.
    """

    def __init__(
        self,
        memory: Memory,
        helpers: Mapping[int, HelperFunction],
        kfuncs: Mapping[int, HelperFunction],
        *,
        budget: int = 1_000_000,
        trace: Trace | None = None,
    ) -> None:
        self.memory = memory
        self.helpers = helpers
        self.kfuncs = kfuncs
        self.budget = budget
        self.trace = trace

    def run(self, program: Program, ctx_address: int, size: int = 0) -> int:
        """Run a program to its end and return r0, unsigned.

        Args:
            program: the program.
            ctx_address: the address of the context, which the program finds in r1.
            size: what it finds in r2, for runtimes that pass the size of the context.

        Raises:
            MachineFault: if the program is malformed, accesses memory that it may not, calls what
                is not there or too deep, or takes more insns than the budget. A `MemoryFault` is
                its cause where there was one. What else a helper raises passes through.
        """
        steps, traces = program.code.steps, program.code.traces
        if self.trace is not None:
            steps, traces = _watched(program, self.trace), [None] * len(steps)
        processor = Processor(self.memory, self._call_out)
        processor.registers[1] = ctx_address
        processor.registers[2] = size
        index, left = processor.enter(0, return_to=0), self.budget
        try:
            while left:
                trace = traces[index]
                if trace is None or left < trace.size:
                    index = steps[index](processor)
                    left -= 1
                else:
                    index, left = trace.run(processor, left)
        except RunEnded:
            return processor.registers[0]
        except (MemoryFault, Trap) as fault:
            raise MachineFault(
                program.name, index, fault.message, program.line_of(index)
            ) from fault
        finally:
            processor.unwind()
        reason = f"the budget of {self.budget} insns is used up"
        raise MachineFault(program.name, index, reason, program.line_of(index))

    def _call_out(self, source: int, number: int, arguments: Sequence[int]) -> int | Callbacks:
        kind, functions = ("kfunc", self.kfuncs) if source else ("helper", self.helpers)
        function = functions.get(number)
        if function is None:
            raise Trap(f"there is no {kind} {number}")
        r1, r2, r3, r4, r5 = arguments
        return function(self, r1, r2, r3, r4, r5)


def _watched(program: Program, trace: Trace) -> list[Step]:
    """Return the steps of a program, each of which shows itself first."""

    def watch(index: int, step: Step) -> Step:
        insn = program.insns[index]

        def shown(processor: Processor) -> int:
            trace(index, insn, processor.registers.copy())
            return step(processor)

        return shown

    return [watch(index, step) for index, step in enumerate(program.code.steps)]
