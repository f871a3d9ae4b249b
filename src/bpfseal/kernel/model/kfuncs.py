"""The kfuncs that a running program of the model can call.

`bpf_loader_verify_metadata` is the seed patch's: its checks, in its order, with its errnos.

Example:
    >>> kfuncs(state, program)[kernel_id](machine, map_address, hash_address, 32, 0, 0)
    0
"""

from __future__ import annotations

from errno import EBADMSG, EINVAL, EPERM

from bpfseal.bpf.uapi import SHA256_SIZE
from bpfseal.btf.kinds import Kind
from bpfseal.errors import KernelError
from bpfseal.kernel.model import lsm
from bpfseal.kernel.model.machine import HelperFunction, Machine
from bpfseal.kernel.model.maps import ModelMap
from bpfseal.kernel.model.processor import Trap
from bpfseal.kernel.model.program import ModelProgram
from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.state import KernelState
from bpfseal.kernel.model.verdict import Verdict
from bpfseal.loader.checks import VERIFY_KFUNC


def kfuncs(state: KernelState, program: ModelProgram) -> dict[int, HelperFunction]:
    """Return the kfuncs for a run of a program, by BTF id.

    The program is bound to them: the verifier supplies it as the implicit argument `aux__ign`.
    """

    def verify(machine: Machine, map_at: int, hash_at: int, size: int, *_unused: int) -> int:
        subject = state.map_at(map_at)
        if subject is None:
            raise Trap(f"{VERIFY_KFUNC}: r1 is no pointer to a map")
        expected = machine.memory.read(hash_at, size & 0xFFFFFFFF)

        def call() -> int:
            verify_metadata(state, program, subject, expected)
            return 0

        return state.answer(program.name, VERIFY_KFUNC, subject.label, call)

    kernel_id = state.btf.known(VERIFY_KFUNC, Kind.FUNC)
    return {} if kernel_id is None else {kernel_id: verify}


def verify_metadata(
    state: KernelState, program: ModelProgram, subject: ModelMap, expected: bytes
) -> None:
    """Compare a loader's metadata map with the digest that its signed insns carry.

    Args:
        state: the kernel.
        program: the program that calls.
        subject: the metadata map.
        expected: the ``hash__sz`` bytes at ``hash``.

    Raises:
        KernelError: the first check that fails; otherwise the verdict becomes METADATA_VERIFIED.
    """
    if program.verdict is not Verdict.OK:
        raise _refuse(EPERM, f"the verdict is {program.verdict.name}, not OK")
    exclusive_to = subject.attributes.excl_prog_hash
    if exclusive_to is None or len(expected) != SHA256_SIZE:
        raise _refuse(EINVAL, f"the map must be exclusive and hash__sz {SHA256_SIZE}")
    if exclusive_to != program.digest:
        raise _refuse(EPERM, "the map is exclusive to another program")
    if not subject.frozen:
        raise _refuse(EPERM, "the map must be frozen")
    if not subject.has_hash:
        raise _refuse(EINVAL, f"{subject.type.name} maps have no hash")
    if subject.compute_hash() != expected:
        raise _refuse(EBADMSG, "the hash of the map differs from the one in the signed insns")
    promoted = Verdict.METADATA_VERIFIED
    operation = lsm.Operation.BPF_PROG_LOAD_POST_INTEGRITY
    lsm.ask(state.hooks, operation, program.facts_for(promoted))
    program.verdict = promoted


def _refuse(number: int, message: str) -> KernelError:
    return refusal(number, f"kernel/bpf/helpers.c {VERIFY_KFUNC}", message)
