"""BPF_PROG_LOAD, in the order of the kernel that the model is.

The seed's kernel and Linux 6.18 to 7.2 verify the signature first, then ask the LSM hooks, then
start the verifier. Linux 7.3 starts the verifier, which computes the digest of a signed program,
binds the maps of ``fd_array_cnt``, verifies the signature over insns and contents of these maps,
and asks the LSM hooks before it looks at an insn.

Source: kernel/bpf/syscall.c ``bpf_prog_load`` with the series, and of 7.2.12; kernel/bpf/verifier.c
``bpf_check`` of 7.3.4.

Example:
    >>> fd = prog_load(state, ProgAttributes(ProgType.SYSCALL, "demo", insns, "GPL", flags=16))
"""

from __future__ import annotations

import hashlib
from errno import E2BIG, EACCES, EINVAL, ENOENT
from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.attr import PROG_LOAD
from bpfseal.bpf.insn import INSN_SIZE, Insn, decode_insns, encode_insns
from bpfseal.bpf.uapi import AttachType, Cmd, ProgType
from bpfseal.btf.kinds import Kind
from bpfseal.errors import KernelError
from bpfseal.kernel.model import fd_array, lsm, signature, verifier
from bpfseal.kernel.model.btf_objects import BtfObject
from bpfseal.kernel.model.map_calls import check_name
from bpfseal.kernel.model.profile import Profile
from bpfseal.kernel.model.program import ModelProgram, ProgAttributes
from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.relocate import relocate
from bpfseal.kernel.model.state import KernelState

_SOURCE = "kernel/bpf/syscall.c bpf_prog_load"
_KNOWN_FLAGS: Final = 0xFF
"""BPF_F_STRICT_ALIGNMENT (bit 0) to BPF_F_TEST_REG_INVARIANTS (bit 7)."""

_ATTACHES_TO_BTF: Final = frozenset(
    {ProgType.TRACING, ProgType.LSM, ProgType.STRUCT_OPS, ProgType.EXT}
)
_NEEDS_TARGET: Final = frozenset({ProgType.TRACING, ProgType.LSM, ProgType.EXT})

_ATTACH_TYPES: Final[dict[int, frozenset[int]]] = {
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


def prog_load(state: KernelState, attributes: ProgAttributes) -> int:
    """Load a program and return its fd; its log is in ``state.verifier_log``.

    Raises:
        KernelError: the first check that refuses.
    """
    state.verifier_log = ""
    try:
        program = _load(state, attributes)
    except KernelError as error:
        error.log = state.verifier_log = state.verifier_log + error.log
        raise
    program.acquire()
    state.programs.append(program)
    return state.fds.install(program)


def _load(state: KernelState, attributes: ProgAttributes) -> ModelProgram:
    profile = state.profile
    _check_attributes(state, attributes)
    insns = tuple(decode_insns(attributes.insns))
    btf = _own_btf(state, attributes.btf_fd) if profile.covers_btf else None
    program = ModelProgram(attributes, _digest(insns), insns, btf)
    if program.is_signed and not profile.verifies_in_verifier:
        signature.verify(state, program)
    if attributes.type not in set(ProgType) - {ProgType.UNSPEC}:
        raise refusal(EINVAL, f"{_SOURCE} (find_prog_type)", f"program type {attributes.type}")
    check_name(attributes.name)
    if profile.verifies_in_verifier:
        if insns[-1].code == op.LD_IMM64:
            log = "invalid bpf_ld_imm64 insn"
            raise refusal(EINVAL, "kernel/bpf/verifier.c bpf_check", log, log=log)
        fd_array.bind(state, program, has_digest=program.is_signed)
        if program.is_signed:
            signature.verify_with_maps(state, program)
    lsm.ask(state.hooks, lsm.Operation.BPF_PROG_LOAD, program.facts_for(program.verdict))
    if profile.covers_btf:
        program.insns = _resolve_kfuncs(state, program)
    if not profile.verifies_in_verifier:
        fd_array.bind(state, program, has_digest=False)
    if not profile.covers_btf and (attributes.func_info or attributes.line_info):
        program.btf = _own_btf(state, attributes.btf_fd)
    verifier.check(state, program)
    program.attach_target = _attach_target(state, attributes)
    if program.type is ProgType.SYSCALL:
        program.runnable = relocate(state, program)
    return program


def _check_attributes(state: KernelState, attributes: ProgAttributes) -> None:
    _check_known(state.profile, attributes)
    if attributes.flags & ~_KNOWN_FLAGS:
        raise refusal(EINVAL, _SOURCE, f"prog_flags {attributes.flags:#x}")
    slots, rest = divmod(len(attributes.insns), INSN_SIZE)
    if rest or not 0 < slots <= state.profile.max_insns:
        raise refusal(E2BIG, _SOURCE, f"{slots} insns")
    source = "kernel/bpf/syscall.c bpf_prog_load_check_attach"
    if attributes.attach_btf_id and attributes.type not in _ATTACHES_TO_BTF:
        raise refusal(EINVAL, source, "attach_btf_id for a type that attaches to no function")
    allowed = _ATTACH_TYPES.get(attributes.type)
    if allowed is not None and attributes.expected_attach_type not in allowed:
        number = attributes.expected_attach_type
        raise refusal(EINVAL, source, f"expected_attach_type {number}")


def _check_known(profile: Profile, attributes: ProgAttributes) -> None:
    """Refuse attributes that came to ``union bpf_attr`` after this kernel.

    Raises:
        KernelError: E2BIG for bytes behind the union, EINVAL for those behind the last field.
    """
    source = "kernel/bpf/syscall.c __sys_bpf"
    if attributes.signature is not None and not profile.has_signatures:
        raise refusal(E2BIG, source, "this kernel knows no signatures")
    last = profile.last_fields.get(Cmd.PROG_LOAD, "keyring_id")
    if attributes.fd_array_count and PROG_LOAD.end(last) < PROG_LOAD.end("fd_array_cnt"):
        raise refusal(EINVAL, _SOURCE, "this kernel knows no fd_array_cnt")


def _own_btf(state: KernelState, fd: int) -> BtfObject | None:
    """Return the program's own BTF.

    Raises:
        KernelError: EBADF for a closed fd, EINVAL for another kind, EACCES for a kernel's BTF.
    """
    if fd == 0:
        return None
    btf = state.fds.get_as(fd, BtfObject)
    if btf.is_kernel:
        raise refusal(EACCES, _SOURCE, "prog_btf_fd is the BTF of the kernel")
    return btf


def _digest(insns: tuple[Insn, ...]) -> bytes:
    """Return SHA-256 of the insns as passed, fds of maps left out.

    Source: kernel/bpf/core.c bpf_prog_calc_tag, which zeroes both immediates of a ld_imm64 that
    names a map by fd: a fd differs from run to run.
    """
    by_fd = (op.PSEUDO_MAP_FD, op.PSEUDO_MAP_VALUE)
    stable = list(insns)
    for index, insn in enumerate(insns[:-1]):
        if insn.is_ld_imm64 and insn.src in by_fd:
            stable[index] = insn._replace(imm=0)
            stable[index + 1] = insns[index + 1]._replace(imm=0)
    return hashlib.sha256(encode_insns(stable)).digest()


def _resolve_kfuncs(state: KernelState, program: ModelProgram) -> tuple[Insn, ...]:
    """Make ordinary kfunc calls of those that name a FUNC of the program's BTF.

    Raises:
        KernelError: EINVAL without BTF, for a non-zero offset or an id that is no FUNC; ENOENT
            for a name that the kernel does not have.
    """
    return tuple(
        _resolve_kfunc(state, program, insn)
        if insn.code == op.JMP | op.CALL and insn.src == op.PSEUDO_KFUNC_CALL_PROG_BTF
        else insn
        for insn in program.insns
    )


def _resolve_kfunc(state: KernelState, program: ModelProgram, insn: Insn) -> Insn:
    def refuse(number: int, message: str) -> KernelError:
        source = "kernel/bpf/syscall.c, the series' resolution of BPF_PSEUDO_KFUNC_CALL_PROG_BTF"
        return refusal(number, source, message)

    if program.btf is None:
        raise refuse(EINVAL, "a call through the program's BTF, and no prog_btf_fd")
    if insn.off:
        raise refuse(EINVAL, f"off is {insn.off}, not 0")
    name = program.btf.function_name(insn.imm)
    if name is None:
        raise refuse(EINVAL, f"type {insn.imm} of the program's BTF is no FUNC")
    kernel_id = state.btf.known(name, Kind.FUNC)
    if kernel_id is None:
        raise refuse(ENOENT, f"the kernel has no function {name}")
    return insn._replace(src=op.PSEUDO_KFUNC_CALL, imm=kernel_id)


def _attach_target(state: KernelState, attributes: ProgAttributes) -> str:
    """Return the name of what a program attaches to (``bpf_check_attach_target``)."""
    source = "kernel/bpf/verifier.c bpf_check_attach_target"
    if attributes.attach_fd:
        target = state.fds.get_as(attributes.attach_fd, ModelProgram)
        functions = target.btf
        name = functions.function_name(attributes.attach_btf_id) if functions else None
        return f"{target.name}.{name or attributes.attach_btf_id}"
    if not attributes.attach_btf_id:
        if attributes.type in _NEEDS_TARGET:
            log = "Tracing programs must provide btf_id"
            raise refusal(EINVAL, source, log, log=log)
        return ""
    for kind in (Kind.FUNC, Kind.TYPEDEF, Kind.STRUCT):
        name = state.btf.name_of(attributes.attach_btf_id, kind)
        if name is not None:
            return name
    log = f"attach_btf_id {attributes.attach_btf_id} is not found"
    raise refusal(EINVAL, source, log, log=log)
