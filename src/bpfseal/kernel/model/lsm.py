"""LSM hooks: what a policy sees of a program, and where it may say no.

A hook is a callable. It gets the operation and the program's facts and returns 0, or a negative
errno to refuse. Hooks are asked in order; the first that refuses decides.

Example:
    >>> def deny_unsigned(operation: Operation, program: ProgramFacts) -> int:
    ...     return -13 if program.verdict is Verdict.UNSIGNED and not program.is_kernel else 0
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum

from bpfseal.kernel.model.refusal import refusal
from bpfseal.kernel.model.verdict import KeyringKind, Verdict


class Operation(Enum):
    """Where a hook is called; the value is the name in an IPE policy."""

    BPF_PROG_LOAD = "BPF_PROG_LOAD"
    """``security_bpf_prog_load``: after the signature check, before the verifier."""

    BPF_PROG_LOAD_POST_INTEGRITY = "BPF_PROG_LOAD_POST_INTEGRITY"
    """``security_bpf_prog_load_post_integrity``: the metadata's hash matches."""


@dataclass(frozen=True, slots=True)
class ProgramFacts:
    """What a hook sees of a program.

    Attributes:
        name: the program's name.
        type: the number of the program type.
        verdict: the signature verdict; after the hash match the one about to be given.
        keyring: the keyring of the signature.
        is_kernel: the load came from inside the kernel (a loader's inner programs).
    """

    name: str
    type: int
    verdict: Verdict
    keyring: KeyringKind
    is_kernel: bool


Hook = Callable[[Operation, ProgramFacts], int]
"""Returns 0 to allow, a negative errno to refuse."""


def ask(hooks: Iterable[Hook], operation: Operation, program: ProgramFacts) -> None:
    """Ask the hooks in order.

    Raises:
        KernelError: a hook refused, with its errno.
    """
    for hook in hooks:
        answer = hook(operation, program)
        if answer:
            source = f"security/security.c security_{operation.value.lower()}"
            raise refusal(abs(answer), source, f"a hook refused {program.name}")
