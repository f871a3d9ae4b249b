"""Follow all paths of a SYSCALL program, as the kernel's verifier does before it lets one run.

What is checked of a program at its load without following paths is in
`bpfseal.kernel.model.verifier`; here registers and stack slots are followed through every path, so
that a program that passes cannot reach memory that is not its own.

Source: kernel/bpf/verifier.c, from ``check_subprogs`` on.

Example:
    >>> analyse_program(state, program).max_ctx_offset
    24
"""

from bpfseal.kernel.model.analysis.analysis import Findings, analyse_program

__all__ = ["Findings", "analyse_program"]
