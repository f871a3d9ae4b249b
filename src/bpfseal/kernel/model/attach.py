"""What a program attaches to: its expected attach type, and the function or program it names.

Source: kernel/bpf/syscall.c ``bpf_prog_load``, ``bpf_prog_load_check_attach``;
kernel/bpf/verifier.c ``check_attach_btf_id``, ``bpf_check_attach_target``; kernel/bpf/bpf_lsm.c
``bpf_lsm_verify_prog``.

Which functions sleep, which may have their return value changed, and which hooks and iterators a
kernel was built with is not known to the model: it takes them as they are named.

Example:
    >>> check_attach_type(attributes, target_of(state, attributes))
"""

from __future__ import annotations

from errno import EINVAL
from typing import Final, NamedTuple

from bpfseal.bpf.uapi import AttachType, ProgType
from bpfseal.btf.kinds import Kind
from bpfseal.errors import KernelError
from bpfseal.kernel.model.btf_objects import BtfObject
from bpfseal.kernel.model.licence import is_gpl_compatible
from bpfseal.kernel.model.program import ModelProgram, ProgAttributes
from bpfseal.kernel.model.refusal import ENOTSUPP, refusal
from bpfseal.kernel.model.state import KernelState

MAX_TYPE: Final = 0x000FFFFF
"""BTF_MAX_TYPE (include/uapi/linux/btf.h)."""

_BY_BTF: Final = frozenset({ProgType.TRACING, ProgType.LSM, ProgType.STRUCT_OPS, ProgType.EXT})
_BY_TARGET: Final = frozenset({ProgType.TRACING, ProgType.LSM, ProgType.EXT})
_BY_PROGRAM: Final = frozenset({ProgType.TRACING, ProgType.EXT})
_TRACES_FUNCTIONS: Final = frozenset(
    {
        AttachType.TRACE_FENTRY,
        AttachType.TRACE_FEXIT,
        AttachType.MODIFY_RETURN,
        AttachType.LSM_MAC,
        AttachType.LSM_CGROUP,
        AttachType.TRACE_FSESSION,
    }
)
_NOT_EXTENSIBLE: Final = frozenset(
    {AttachType.TRACE_FENTRY, AttachType.TRACE_FEXIT, AttachType.TRACE_FSESSION}
)
TRACEPOINT_PREFIX: Final = "btf_trace_"
"""What the typedefs are called by which a kernel's BTF names its tracepoints."""

_ITERATOR_PREFIX: Final = "bpf_iter_"
_HOOK_PREFIX: Final = "bpf_lsm_"

ATTACH_TYPES: Final[dict[int, frozenset[int]]] = {
    ProgType.CGROUP_SOCK: frozenset(
        {
            0,  # taken for CGROUP_INET_SOCK_CREATE (bpf_prog_load_fixup_attach_type)
            AttachType.CGROUP_INET_SOCK_CREATE,
            AttachType.CGROUP_INET_SOCK_RELEASE,
            AttachType.CGROUP_INET4_POST_BIND,
            AttachType.CGROUP_INET6_POST_BIND,
        }
    ),
    ProgType.CGROUP_SOCK_ADDR: frozenset(
        {
            AttachType.CGROUP_INET4_BIND,
            AttachType.CGROUP_INET6_BIND,
            AttachType.CGROUP_INET4_CONNECT,
            AttachType.CGROUP_INET6_CONNECT,
            AttachType.CGROUP_UNIX_CONNECT,
            AttachType.CGROUP_INET4_GETPEERNAME,
            AttachType.CGROUP_INET6_GETPEERNAME,
            AttachType.CGROUP_UNIX_GETPEERNAME,
            AttachType.CGROUP_INET4_GETSOCKNAME,
            AttachType.CGROUP_INET6_GETSOCKNAME,
            AttachType.CGROUP_UNIX_GETSOCKNAME,
            AttachType.CGROUP_UDP4_SENDMSG,
            AttachType.CGROUP_UDP6_SENDMSG,
            AttachType.CGROUP_UNIX_SENDMSG,
            AttachType.CGROUP_UDP4_RECVMSG,
            AttachType.CGROUP_UDP6_RECVMSG,
            AttachType.CGROUP_UNIX_RECVMSG,
        }
    ),
    ProgType.CGROUP_SKB: frozenset({AttachType.CGROUP_INET_INGRESS, AttachType.CGROUP_INET_EGRESS}),
    ProgType.CGROUP_SOCKOPT: frozenset(
        {AttachType.CGROUP_SETSOCKOPT, AttachType.CGROUP_GETSOCKOPT}
    ),
    ProgType.SK_LOOKUP: frozenset({AttachType.SK_LOOKUP}),
    ProgType.SK_REUSEPORT: frozenset(
        {
            0,  # taken for SK_REUSEPORT_SELECT (bpf_prog_load_fixup_attach_type)
            AttachType.SK_REUSEPORT_SELECT,
            AttachType.SK_REUSEPORT_SELECT_OR_MIGRATE,
        }
    ),
    ProgType.NETFILTER: frozenset({AttachType.NETFILTER}),
    ProgType.SYSCALL: frozenset({0}),
    ProgType.EXT: frozenset({0}),
}
"""Expected attach types that a program type is restricted to (``bpf_prog_load_check_attach``)."""


class Target(NamedTuple):
    """What `attach_btf_id` is the id of a type of.

    Attributes:
        program: another program, or ``None``.
        is_kernel: the kernel's BTF.
    """

    program: ModelProgram | None
    is_kernel: bool


def target_of(state: KernelState, attributes: ProgAttributes) -> Target:
    """Return what a program attaches to a function of.

    Raises:
        KernelError: EINVAL for a fd that is neither a program nor a BTF, ENOTSUPP for a BTF that is
            not the kernel's.
    """
    if not attributes.attach_fd:
        return Target(None, is_kernel=bool(attributes.attach_btf_id))
    named = state.fds.find(attributes.attach_fd)
    if isinstance(named, ModelProgram):
        return Target(named, is_kernel=False)
    source = "kernel/bpf/syscall.c bpf_prog_load"
    if not isinstance(named, BtfObject):
        raise refusal(EINVAL, source, f"attach_prog_fd {attributes.attach_fd}: no program, no BTF")
    if not named.is_kernel:
        raise refusal(ENOTSUPP, source, "attach_btf_obj_fd is not the BTF of a kernel")
    return Target(None, is_kernel=True)


def check_attach_type(attributes: ProgAttributes, target: Target) -> None:
    """Check the expected attach type, and that type and target fit (``prog_load_check_attach``).

    Raises:
        KernelError: EINVAL.
    """

    def demand(holds: bool, message: str) -> None:
        if not holds:
            source = "kernel/bpf/syscall.c bpf_prog_load_check_attach"
            raise refusal(EINVAL, source, message)

    kind, number, type_id = (
        attributes.type,
        attributes.expected_attach_type,
        attributes.attach_btf_id,
    )
    if type_id:
        demand(type_id <= MAX_TYPE, f"attach_btf_id {type_id}")
        demand(kind in _BY_BTF, "attach_btf_id for a type that attaches to no function")
    demand(bool(type_id) or not target.is_kernel, "attach_btf_obj_fd without attach_btf_id")
    demand(target.program is None or kind in _BY_PROGRAM, "attach_prog_fd for this type")
    allowed = ATTACH_TYPES.get(kind)
    demand(allowed is None or number in allowed, f"expected_attach_type {number}")


def check_target(state: KernelState, program: ModelProgram) -> str:
    """Check what a program attaches to, and return its name; ``""`` for nothing named.

    Raises:
        KernelError: EINVAL, ENOTSUPP.
    """
    given = program.attributes
    if program.type is ProgType.STRUCT_OPS:
        return _struct_ops(state, program)
    if program.type not in _BY_TARGET:
        return ""
    if not given.attach_btf_id:
        raise _refuse("bpf_check_attach_target", "Tracing programs must provide btf_id")
    target = target_of(state, given)
    if target.program is not None:
        return _function_of(program, target.program)
    if program.type is ProgType.EXT:
        raise _refuse("bpf_check_attach_target", "Cannot replace kernel functions")
    name = _kernel_target(state, program)
    if program.type is ProgType.LSM:
        _check_hook(program, name)
    return name


def _refuse(function: str, log: str, number: int = EINVAL) -> KernelError:
    return refusal(number, f"kernel/bpf/verifier.c {function}", log, log=log)


def _struct_ops(state: KernelState, program: ModelProgram) -> str:
    function, type_id = "check_struct_ops_btf_id", program.attributes.attach_btf_id
    if not is_gpl_compatible(program.attributes.license):
        raise _refuse(function, "struct ops programs must have a GPL compatible license")
    name = state.btf.name_of(type_id, Kind.STRUCT) if type_id else None
    if name is None:
        log = f"attach_btf_id {type_id} is not a supported struct"
        raise _refuse(function, log, ENOTSUPP)
    types, member = state.btf.types, program.attributes.expected_attach_type
    if types is not None and member >= types[type_id].vlen:
        raise _refuse(function, f"attach to invalid member idx {member} of struct {name}")
    return name


def _kernel_target(state: KernelState, program: ModelProgram) -> str:
    function, type_id = "bpf_check_attach_target", program.attributes.attach_btf_id
    expected = program.attributes.expected_attach_type
    wanted = Kind.TYPEDEF if expected == AttachType.TRACE_RAW_TP else Kind.FUNC
    name = state.btf.name_of(type_id, wanted)
    if name is None:
        known = any(state.btf.name_of(type_id, kind) for kind in Kind)
        if not known:
            raise _refuse(function, f"attach_btf_id {type_id} is invalid")
        what = "typedef" if wanted is Kind.TYPEDEF else "function"
        raise _refuse(function, f"attach_btf_id {type_id} is not a {what}")
    if expected == AttachType.TRACE_RAW_TP:
        if not name.startswith(TRACEPOINT_PREFIX):
            log = f"attach_btf_id {type_id} points to wrong type name {name}"
            raise _refuse(function, log)
    elif expected == AttachType.TRACE_ITER:
        if not name.startswith(_ITERATOR_PREFIX):
            source = "kernel/bpf/bpf_iter.c bpf_iter_prog_supported"
            raise refusal(EINVAL, source, f"{name} is no iterator")
    elif expected not in _TRACES_FUNCTIONS:
        source = f"kernel/bpf/verifier.c {function}"
        raise refusal(EINVAL, source, f"expected_attach_type {expected}")
    return name


def _check_hook(program: ModelProgram, name: str) -> None:
    """Check that a function is an LSM hook (``bpf_lsm_verify_prog``)."""
    source = "kernel/bpf/bpf_lsm.c bpf_lsm_verify_prog"
    if not is_gpl_compatible(program.attributes.license):
        log = "LSM programs must have a GPL compatible license"
        raise refusal(EINVAL, source, log, log=log)
    if not name.startswith(_HOOK_PREFIX):
        type_id = program.attributes.attach_btf_id
        log = f"attach_btf_id {type_id} points to wrong type name {name}"
        raise refusal(EINVAL, source, log, log=log)


def _function_of(program: ModelProgram, target: ModelProgram) -> str:
    """Return the name of a function of another program, ``program.function``."""
    function, type_id = "bpf_check_attach_target", program.attributes.attach_btf_id
    if target.btf is None:
        log = "Tracing program can only be attached to another program annotated with BTF"
        raise _refuse(function, log)
    types = target.btf.btf
    if type_id >= len(types):
        raise _refuse(function, f"attach_btf_id {type_id} is invalid")
    name = types.type_by_id(type_id).name
    if not any(func == type_id for _insn, func in target.func_info):
        raise _refuse(function, f"Subprog {name} doesn't exist")
    if program.type is ProgType.EXT:
        if target.type is ProgType.EXT:
            raise _refuse(function, "Cannot recursively attach")
        is_traced = target.attributes.expected_attach_type in _NOT_EXTENSIBLE
        if target.type is ProgType.TRACING and is_traced:
            raise _refuse(function, "Cannot extend fentry/fexit/fsession")
    elif target.type is ProgType.TRACING and target.attributes.attach_fd:
        raise _refuse(function, "Cannot nest tracing program attach more than once")
    return f"{target.name}.{name}"
