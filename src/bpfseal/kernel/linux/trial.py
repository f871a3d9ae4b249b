"""Trial loads: what only the kernel's answer to a harmless call tells.

The program of a trial returns 0 and is never attached, so a trial changes nothing.
"""

from __future__ import annotations

from errno import E2BIG, EACCES, EBADMSG, EINVAL, EKEYREJECTED, ENOKEY, EOPNOTSUPP, EPERM
from typing import Final

from bpfseal.bpf.insn import encode_insns, exit_insn, mov64_imm
from bpfseal.bpf.uapi import KeyringId, ProgFlag, ProgType
from bpfseal.errors import KernelError
from bpfseal.kernel.linux.features import Finding
from bpfseal.kernel.protocol import Kernel, ProgLoad
from bpfseal.loader.model import LOADER_LICENSE

_RETURN_0: Final = encode_insns([mov64_imm(0, 0), exit_insn()])
_NO_SIGNATURE: Final = b"no CMS message"

_ANSWERS: Final = {
    EBADMSG: (True, "a broken signature is refused as one (EBADMSG)"),
    EKEYREJECTED: (True, "a broken signature is refused (EKEYREJECTED)"),
    ENOKEY: (True, "a broken signature is refused (ENOKEY)"),
    EOPNOTSUPP: (False, "built without CONFIG_SYSTEM_DATA_VERIFICATION (EOPNOTSUPP)"),
    E2BIG: (False, "bpf() knows no signatures (E2BIG)"),
    EINVAL: (None, "the trial's keyring cannot be resolved (EINVAL)"),
    EPERM: (None, "this process may not load programs (EPERM)"),
    EACCES: (None, "a security policy forbids it (EACCES)"),
}
"""What a kernel's answer to a broken signature says about signature verification."""


def verifies_signatures(kernel: Kernel) -> Finding:
    """Say whether a kernel verifies signatures of BPF programs."""
    request = ProgLoad(
        type=ProgType.SYSCALL,
        name="trial",
        insns=_RETURN_0,
        license=LOADER_LICENSE,
        flags=ProgFlag.SLEEPABLE,
        signature=_NO_SIGNATURE,
        keyring_id=KeyringId.USER,
    )
    try:
        kernel.close(kernel.prog_load(request))
    except KernelError as error:
        answer, reason = _ANSWERS.get(error.errno, (None, f"answered {error.errno_name}"))
        return Finding(answer, reason)
    return Finding(False, "a broken signature was accepted")
