"""What a policy will be asked when a loader is loaded, without loading it.

Example:
    >>> [operation.value for operation, _ in expected_questions(signed, KeyringKind.USER)]
    ['BPF_PROG_LOAD', 'BPF_PROG_LOAD_POST_INTEGRITY', 'BPF_PROG_LOAD']
"""

from __future__ import annotations

from collections.abc import Iterator

from bpfseal.bpf.uapi import OBJ_NAME_LEN, ProgType
from bpfseal.bundle.model import SignedLoader
from bpfseal.errors import UsageError
from bpfseal.kernel.model.lsm import Operation, ProgramFacts
from bpfseal.kernel.model.verdict import KeyringKind, Verdict
from bpfseal.loader.model import LOADER_PROG_NAME
from bpfseal.scheme import KFUNC


def expected_questions(
    signed: SignedLoader, keyring: KeyringKind
) -> Iterator[tuple[Operation, ProgramFacts]]:
    """Yield the questions of a load in which everything else goes well, in order.

    They are the loader's own load, the match of its metadata's hash if its scheme has that, and
    the load of each program that it installs.

    Args:
        signed: the loader, signed or not.
        keyring: the keyring that its signature verifies with.

    Raises:
        UsageError: a kernel with the series refuses the signature before it asks a policy.
    """
    loader = signed.loader
    is_signed = bool(signed.signatures)
    if is_signed and loader.scheme.binds_metadata:
        raise UsageError(
            f"scheme {loader.scheme_name} is not for kernels that have these operations: they "
            "refuse its signature before a policy is asked"
        )

    def facts(verdict: Verdict) -> ProgramFacts:
        used = keyring if is_signed else KeyringKind.NONE
        return ProgramFacts(LOADER_PROG_NAME, ProgType.SYSCALL, verdict, used, is_kernel=False)

    yield Operation.BPF_PROG_LOAD, facts(Verdict.OK if is_signed else Verdict.UNSIGNED)
    if loader.scheme is KFUNC:
        if not is_signed:
            return  # the kfunc ends its run with -EPERM
        yield Operation.BPF_PROG_LOAD_POST_INTEGRITY, facts(Verdict.METADATA_VERIFIED)
    for program in loader.programs:
        name = program.name.encode()[: OBJ_NAME_LEN - 1].decode(errors="replace")
        yield (
            Operation.BPF_PROG_LOAD,
            ProgramFacts(name, program.type, Verdict.UNSIGNED, KeyringKind.NONE, is_kernel=True),
        )
