"""BPF_PROG_RUN: one run of a SYSCALL program.

Source: kernel/bpf/syscall.c ``bpf_prog_test_run``, net/bpf/test_run.c
``bpf_prog_test_run_syscall``.

Example:
    >>> run_program(state, fd, bytes(24))
    (0, b'...')
"""

from __future__ import annotations

from errno import EFAULT, EINVAL
from typing import Final

from bpfseal.errors import KernelError
from bpfseal.kernel.model.helpers import helpers
from bpfseal.kernel.model.kfuncs import kfuncs
from bpfseal.kernel.model.machine import Machine, MachineFault
from bpfseal.kernel.model.program import ModelProgram
from bpfseal.kernel.model.refusal import ENOTSUPP, refusal
from bpfseal.kernel.model.state import KernelState

MAX_CTX_SIZE: Final = 0xFFFF
"""Bytes of the largest context of a SYSCALL program."""

INSN_BUDGET: Final = 1_000_000
"""Insns that one run may take."""


def run_program(state: KernelState, fd: int, ctx: bytes) -> tuple[int, bytes]:
    """Run a program once; return its signed 32-bit value and the context after it.

    Raises:
        KernelError: EBADF, EINVAL for no program or a context that is too large, ENOTSUPP for
            a program of a type that the model does not run, EFAULT for a program that does
            what the kernel's verifier would not have let it.
    """
    source = "kernel/bpf/syscall.c bpf_prog_test_run, net/bpf/test_run.c"
    program = state.fds.get_as(fd, ModelProgram)
    if program.runnable is None:
        raise refusal(ENOTSUPP, source, f"the model does not run {program.type.name}")
    if not program.max_ctx_offset <= len(ctx) <= MAX_CTX_SIZE:
        needed = f"{program.max_ctx_offset} to {MAX_CTX_SIZE}"
        raise refusal(EINVAL, source, f"context of {len(ctx)} bytes, not {needed}")
    machine = Machine(
        state.memory, helpers(state, program), kfuncs(state, program), budget=INSN_BUDGET
    )
    context = state.memory.map("ctx", bytearray(ctx))
    program.hold()
    try:
        value = machine.run(program.runnable, context.base) & 0xFFFFFFFF
    except MachineFault as fault:
        raise KernelError(EFAULT, str(fault), rule=f"the verifier: {fault}") from fault
    finally:
        program.drop()
        state.memory.unmap(context)
    return value - (1 << 32) if value >> 31 else value, bytes(context.data)
