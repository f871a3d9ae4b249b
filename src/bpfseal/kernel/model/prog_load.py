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

from errno import E2BIG, EACCES, EINVAL, ENOENT
from typing import Final

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.attr import PROG_LOAD
from bpfseal.bpf.insn import INSN_SIZE, Insn, decode_insns
from bpfseal.bpf.uapi import Cmd, ProgType
from bpfseal.btf.kinds import Kind
from bpfseal.errors import KernelError
from bpfseal.kernel.model import fd_array, lsm, signature, verifier
from bpfseal.kernel.model.attach import check_attach_type, target_of
from bpfseal.kernel.model.btf_objects import BtfObject
from bpfseal.kernel.model.map_calls import check_name
from bpfseal.kernel.model.profile import Profile
from bpfseal.kernel.model.program import ModelProgram, ProgAttributes, insns_digest
from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.relocate import relocate
from bpfseal.kernel.model.state import KernelState

_SOURCE = "kernel/bpf/syscall.c bpf_prog_load"
_KNOWN_FLAGS: Final = 0xFF
"""BPF_F_STRICT_ALIGNMENT (bit 0) to BPF_F_TEST_REG_INVARIANTS (bit 7)."""


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
    program.id = len(state.programs)
    return state.fds.install(program)


def _load(state: KernelState, attributes: ProgAttributes) -> ModelProgram:
    profile = state.profile
    _check_attributes(state, attributes)
    insns = tuple(decode_insns(attributes.insns))
    has_btf = profile.covers_btf and attributes.btf_fd
    btf = _own_btf(state, attributes.btf_fd) if has_btf else None
    program = ModelProgram(attributes, insns_digest(insns), insns, btf)
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
    if program.btf is None and _wants_btf(profile, attributes):
        program.btf = _own_btf(state, attributes.btf_fd)
    verifier.check(state, program)
    if verifier.is_followed(state, program):
        program.runnable = relocate(state, program)
    return program


def _check_attributes(state: KernelState, attributes: ProgAttributes) -> None:
    _check_known(state.profile, attributes)
    if attributes.flags & ~_KNOWN_FLAGS:
        raise refusal(EINVAL, _SOURCE, f"prog_flags {attributes.flags:#x}")
    slots, rest = divmod(len(attributes.insns), INSN_SIZE)
    if rest or not 0 < slots <= state.profile.max_insns:
        raise refusal(E2BIG, _SOURCE, f"{slots} insns")
    check_attach_type(attributes, target_of(state, attributes))


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


def _wants_btf(profile: Profile, attributes: ProgAttributes) -> bool:
    """Whether a program brings records that need its BTF (``bpf_check_btf_info_early``)."""
    return bool(
        attributes.func_info.count
        or attributes.line_info.count
        or (profile.relocates_first and attributes.core_relos.count)
    )


def _own_btf(state: KernelState, fd: int) -> BtfObject:
    """Return the program's own BTF.

    Raises:
        KernelError: EBADF for a closed fd, EINVAL for another kind, EACCES for a kernel's BTF.
    """
    btf = state.fds.get_as(fd, BtfObject)
    if btf.is_kernel:
        raise refusal(EACCES, _SOURCE, "prog_btf_fd is the BTF of the kernel")
    return btf


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
