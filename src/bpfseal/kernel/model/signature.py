"""The signature of a program: what it is held against, and by whose key.

Kernels of two generations differ. The seed's kernel and Linux 6.18 to 7.2 hold it against bytes of
the program alone (`verify`). Linux 7.3 holds it against the insns and the contents of all maps that
the load binds (`verify_with_maps`) and says in the verifier's log what it did not like.

Source: ``bpf_prog_verify_signature`` in kernel/bpf/syscall.c of 7.2.12, in kernel/bpf/verifier.c of
7.3.4.

Example:
    >>> verify(state, program)
    >>> program.verdict
    <Verdict.OK: 1>
"""

from __future__ import annotations

from errno import E2BIG, EBUSY, EINVAL, EPERM
from typing import Final

from bpfseal.bpf.uapi import MapType
from bpfseal.errors import KernelError
from bpfseal.kernel.model.keyring import Key, Keyring
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.memory import MemoryFault
from bpfseal.kernel.model.program import ModelProgram, Pointer
from bpfseal.kernel.model.refusal import ENOTSUPP, refusal
from bpfseal.kernel.model.state import KernelState
from bpfseal.kernel.model.verdict import KeyringKind, Verdict

MAX_PAYLOAD: Final = (1 << 24) - 1
"""Bytes of the largest payload: DYNPTR_MAX_SIZE (kernel/bpf/helpers.c)."""

_BY_SYSCALL = "kernel/bpf/syscall.c bpf_prog_verify_signature"
_BY_VERIFIER = "kernel/bpf/verifier.c bpf_prog_verify_signature"


def verify(state: KernelState, program: ModelProgram) -> None:
    """Verify a signature over the program, and set its verdict and keyring.

    Raises:
        KernelError: EINVAL for a signature that is too large or a keyring that cannot be
            resolved, ENOMEM or EFAULT for one that cannot be read, then what the keyrings answer.
    """
    size = _size(program)
    if size > state.profile.max_signature_size:
        raise _too_large(state, _BY_SYSCALL)
    keyring = state.keyrings.resolve(program.attributes.keyring_id)
    given = _read(state, program, _BY_SYSCALL)
    parts = {"insns": program.attributes.insns, "btf": program.btf.raw if program.btf else b""}
    payload = b"".join(parts[part] for part in state.profile.signed_parts)
    state.keyrings.verify(given, payload, keyring)
    _set_verdict(program)


def verify_with_maps(state: KernelState, program: ModelProgram) -> None:
    """Verify a signature over insns and contents of the bound maps, in the order of the array.

    A map that is listed twice counts once. Of each map `value_size` bytes are covered, not the 8 to
    which an element is rounded up.

    Raises:
        KernelError: EINVAL for a signature of no bytes or too many, for a keyring that cannot be
            resolved and for a bound map that is no array; EPERM for one that is not frozen or not
            exclusive, EBUSY for one with a writable mapping, ENOTSUPP (524) for one of several
            entries; E2BIG for too much; then what the keyrings answer.
    """
    size = _size(program)
    if not size:
        raise refusal(state.profile.empty_signature_errno, _BY_VERIFIER, "the signature is empty")
    if size > state.profile.max_signature_size:
        raise _too_large(state, _BY_VERIFIER)
    keyring = _resolve(state, program.attributes.keyring_id)
    given = _read(state, program, _BY_VERIFIER)
    for bound in program.bound:
        _check_covered(bound)
    sizes = (bound.attributes.value_size for bound in program.bound)
    total = len(program.attributes.insns) + sum(sizes)
    if total > MAX_PAYLOAD:
        raise _refuse(E2BIG, f"signed payload too large: {total} bytes")
    payload = program.attributes.insns + b"".join(_contents(bound) for bound in program.bound)
    try:
        state.keyrings.verify(given, payload, keyring)
    except KernelError as error:
        error.log = f"signature verification failed: {-error.errno}"
        raise
    state.verifier_log += "signature verification passed\n"
    _set_verdict(program)


def _size(program: ModelProgram) -> int:
    given = program.attributes.signature
    return given.size if isinstance(given, Pointer) else len(given or b"")


def _too_large(state: KernelState, source: str) -> KernelError:
    limit = state.profile.max_signature_size
    return refusal(EINVAL, source, f"the signature is larger than {limit} bytes")


def _resolve(state: KernelState, keyring_id: int) -> Keyring | Key:
    try:
        return state.keyrings.resolve(keyring_id)
    except KernelError as error:
        if error.errno == EINVAL:
            error.log = f"cannot resolve signing keyring with keyring_id {keyring_id}"
        raise


def _read(state: KernelState, program: ModelProgram, source: str) -> bytes:
    given = program.attributes.signature
    if not isinstance(given, Pointer):
        return given or b""
    try:
        return state.memory.read(given.address, given.size)
    except MemoryFault as fault:
        number = state.profile.bad_signature_pointer_errno
        raise refusal(number, source, f"signature: {fault.message}") from fault


def _refuse(number: int, log: str) -> KernelError:
    return refusal(number, _BY_VERIFIER, log, log=log)


def _check_covered(bound: ModelMap) -> None:
    """Check that nobody can change a map any more that a signature shall cover."""
    name = f"signed program metadata map '{bound.name}'"
    if bound.type is not MapType.ARRAY:
        raise _refuse(EINVAL, f"{name} must be an array")
    if not bound.frozen:
        raise _refuse(EPERM, f"{name} must be frozen")
    if bound.writers:
        raise _refuse(EBUSY, f"{name} has active writers")
    if bound.attributes.excl_prog_hash is None:
        raise _refuse(EPERM, f"{name} must be exclusive")


def _contents(bound: ModelMap) -> bytes:
    if bound.attributes.max_entries != 1:
        log = f"failed to read signed metadata map '{bound.name}': {-ENOTSUPP}"
        raise _refuse(ENOTSUPP, log)
    return bound.lookup(bytes(4)) or b""


def _set_verdict(program: ModelProgram) -> None:
    program.verdict = Verdict.OK
    program.keyring = KeyringKind.of(program.attributes.keyring_id)
