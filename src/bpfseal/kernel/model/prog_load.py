"""BPF_PROG_LOAD, in the order of the seed's kernel.

Copy insns and licence, resolve the program's BTF, verify the signature, set verdict and keyring,
ask the LSM hooks, resolve kfunc calls through the program's BTF, verify.

Source: kernel/bpf/syscall.c ``bpf_prog_load`` with the series.

Example:
    >>> fd = prog_load(state, ProgAttributes(ProgType.SYSCALL, "demo", insns, "GPL", flags=16))
"""

from __future__ import annotations

import hashlib
from errno import E2BIG, EACCES, EBADMSG, EINVAL, ENOENT
from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import INSN_SIZE, Insn, decode_insns, encode_insns
from bpfseal.bpf.uapi import AttachType, ProgType
from bpfseal.btf.kinds import Kind
from bpfseal.errors import KernelError
from bpfseal.kernel.model import lsm, verifier
from bpfseal.kernel.model.btf_objects import BtfObject
from bpfseal.kernel.model.map_calls import check_name
from bpfseal.kernel.model.program import ModelProgram, ProgAttributes
from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.relocate import relocate
from bpfseal.kernel.model.state import KernelState
from bpfseal.kernel.model.verdict import KeyringKind, Verdict

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
    """Load a program and return its fd.

    Raises:
        KernelError: the first check that refuses.
    """
    _check_attributes(state, attributes)
    insns = tuple(decode_insns(attributes.insns))
    btf = _own_btf(state, attributes.btf_fd)
    program = ModelProgram(attributes, _digest(insns), insns, btf)
    _check_signature(state, program)
    if attributes.type not in set(ProgType) - {ProgType.UNSPEC}:
        raise refusal(EINVAL, f"{_SOURCE} (find_prog_type)", f"program type {attributes.type}")
    check_name(attributes.name)
    lsm.ask(state.hooks, lsm.Operation.BPF_PROG_LOAD, program.facts_for(program.verdict))
    program.insns = _resolve_kfuncs(state, program)
    verifier.check(state, program)
    program.attach_target = _attach_target(state, attributes)
    if program.type is ProgType.SYSCALL:
        program.runnable = relocate(state, program)
    program.acquire()
    state.programs.append(program)
    return state.fds.install(program)


def _check_attributes(state: KernelState, attributes: ProgAttributes) -> None:
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


def _check_signature(state: KernelState, program: ModelProgram) -> None:
    """Verify a program's signature, and set its verdict and keyring.

    Raises:
        KernelError: EINVAL for a signature that is too large or a keyring that cannot be
            resolved, then what the verification answers.
    """
    attributes = program.attributes
    if attributes.signature is None:
        return
    source = "kernel/bpf/syscall.c bpf_prog_verify_signature"
    if len(attributes.signature) > state.profile.max_signature_size:
        limit = state.profile.max_signature_size
        raise refusal(EINVAL, source, f"the signature is larger than {limit} bytes")
    keyring = state.keyrings.resolve(attributes.keyring_id)
    if not attributes.signature:
        raise refusal(EBADMSG, source, "the signature is empty")
    parts = {"insns": attributes.insns, "btf": program.btf.raw if program.btf else b""}
    payload = b"".join(parts[part] for part in state.profile.signed_parts)
    state.keyrings.verify(attributes.signature, payload, keyring)
    program.verdict = Verdict.OK
    program.keyring = KeyringKind.of(attributes.keyring_id)


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
