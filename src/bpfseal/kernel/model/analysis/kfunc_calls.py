"""Calls of kfuncs: may the program call this one, and are the arguments what it takes.

Source: ``check_kfunc_call`` and ``check_kfunc_args`` in kernel/bpf/verifier.c.

Example:
    >>> call(env, kernel_btf_id)
"""

from __future__ import annotations

from errno import EACCES, EINVAL

from bpfseal.bpf.insn import Insn
from bpfseal.bpf.uapi import ProgType
from bpfseal.btf.kinds import Kind
from bpfseal.kernel.model.analysis import scalar
from bpfseal.kernel.model.analysis.env import Env
from bpfseal.kernel.model.analysis.helper_calls import check_sized_memory
from bpfseal.kernel.model.analysis.kfunc_table import ARGUMENTS, KfuncArgument
from bpfseal.kernel.model.analysis.refused import Refused
from bpfseal.kernel.model.analysis.scalar import Scalar
from bpfseal.kernel.model.analysis.values import Pointer, PointerKind, describe

_FUNCTION = "check_kfunc_args"


def is_missing_kfunc(insn: Insn) -> bool:
    """Whether a call is that of a weak kfunc that the kernel lacks: no path may lead there."""
    return insn.imm == insn.off == 0


def call(env: Env, kernel_id: int) -> None:
    """Check a call and let it change the state.

    Raises:
        Refused: EACCES for a kfunc that the program may not call, EINVAL or EACCES for arguments.
    """
    name = env.btf.name_of(kernel_id, Kind.FUNC)
    if name is None:
        message = f"kernel btf_id {kernel_id} is not a function"
        raise env.refuse(EINVAL, "add_kfunc_call", message)
    if ProgType.SYSCALL not in env.profile.kfuncs.get(name, frozenset()):
        message = f"calling kernel function {name} is not allowed"
        raise env.refuse(EACCES, "check_kfunc_call", message)
    for position, argument in enumerate(ARGUMENTS[name]):
        _check(env, position, argument)
    frame = env.state.frame
    frame.scrub()
    frame.registers[0] = scalar.UNKNOWN


def _check(env: Env, position: int, argument: KfuncArgument) -> None:
    register = position + 1
    if argument is KfuncArgument.AUX:  # the verifier supplies it; the register is not looked at
        return
    value = env.read_register(register)
    match argument:
        case KfuncArgument.MAP:
            _check_map(env, position, value)
        case KfuncArgument.MEMORY:
            if not isinstance(value, Pointer):
                word = describe(value)
                message = f"R{register} type={word} expected=fp, pkt, pkt_meta, map_key, map_value"
                if value == scalar.ZERO:
                    message = f"Possibly NULL pointer passed to trusted arg{position}"
                raise env.refuse(EACCES, _FUNCTION, message)
            try:
                check_sized_memory(env, register, "read", zero_allowed=True)
            except Refused as refused:
                pair = f"arg#{position} arg#{position + 1}"
                message = (
                    f"{refused.message}\n{pair} memory, len pair leads to invalid memory access"
                )
                raise env.refuse(refused.errno, _FUNCTION, message) from refused
        case KfuncArgument.SIZE:
            if not isinstance(value, Scalar):
                raise env.refuse(EINVAL, _FUNCTION, f"R{register} is not a scalar")


def _check_map(env: Env, position: int, value: Scalar | Pointer) -> None:
    """Check a ``struct bpf_map *``."""
    if value == scalar.ZERO:
        message = f"Possibly NULL pointer passed to trusted arg{position}"
        raise env.refuse(EACCES, _FUNCTION, message)
    if not isinstance(value, Pointer) or value.kind is not PointerKind.MAP:
        message = (
            f"arg#{position} pointer type STRUCT bpf_map must point to scalar,"
            " or struct with scalar"
        )
        raise env.refuse(EINVAL, _FUNCTION, message)
