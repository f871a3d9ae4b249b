"""Calls of helpers that a verifier refuses whatever their arguments are, where it gets there.

Source: kernel/bpf/verifier.c ``check_helper_call``.

Example:
    >>> check_helpers(program)
    Traceback (most recent call last):
    bpfseal.errors.KernelError: -EINVAL: invalid func unknown#195896080
"""

from __future__ import annotations

from errno import EINVAL

from bpfseal.kernel.model.analysis.control_flow import CALL
from bpfseal.kernel.model.analysis.helper_names import exists, helper_name
from bpfseal.kernel.model.licence import is_gpl_compatible, is_gpl_only
from bpfseal.kernel.model.program import ModelProgram
from bpfseal.kernel.model.reachability import reachable
from bpfseal.kernel.model.refusal import refusal


def check_helpers(program: ModelProgram) -> None:
    """Check the helpers that a program calls where it is reached.

    Raises:
        KernelError: EINVAL for one that does not exist, as an insn calls that CO-RE found nothing
            for, and for one that only programs with a GPL-compatible licence may call.
    """
    is_gpl = is_gpl_compatible(program.attributes.license)
    attach_type = program.attributes.expected_attach_type
    wrong = [
        index
        for index, insn in enumerate(program.insns)
        if insn.code == CALL
        and not insn.src
        and (
            not exists(insn.imm)
            or (not is_gpl and is_gpl_only(insn.imm, program.type, attach_type))
        )
    ]
    if not wrong:
        return
    reached = reachable(program)
    for index in wrong:
        if index in reached:
            source = f"kernel/bpf/verifier.c check_helper_call, insn {index}"
            number = program.insns[index].imm
            log = "cannot call GPL-restricted function from non-GPL compatible program"
            if not exists(number):
                log = f"invalid func {helper_name(number)}#{number}"
            missing = program.poisoned.get(index)
            message = f"{log}: the kernel has no such thing: {missing}" if missing else log
            raise refusal(EINVAL, source, message, log=log)
