"""What to do about a kernel's refusal of a loader.

Example:
    >>> advise(KernelError(errno.ENOKEY, step="prog_load"), signed, "kfunc").hint
    'the keyring holds no key that made this signature: --certificate FILE'
"""

from __future__ import annotations

import errno
from typing import Final, NamedTuple

from bpfseal.bundle.model import SignedLoader
from bpfseal.errors import KernelError
from bpfseal.scheme import UNSIGNED


class Advice(NamedTuple):
    """What a refusal means.

    Attributes:
        hint: what to do about it, one line, or ``""``.
        is_environment: it says more about the kernel or the process than about the artifact.
    """

    hint: str
    is_environment: bool = False


_NO_PRIVILEGE: Final = Advice(
    "loading BPF programs needs CAP_BPF and CAP_PERFMON (root has them)", is_environment=True
)
_NO_EXCLUSIVE_MAPS: Final = Advice(
    "this kernel has no exclusive maps (Linux 6.18 has): it takes no signed loaders",
    is_environment=True,
)
_OTHER_METADATA: Final = Advice("the metadata was changed after signing: build and sign again")

_ADVICE: Final = {
    ("map_create", errno.EPERM): _NO_PRIVILEGE,
    ("map_create", errno.ENOSYS): Advice("this kernel has no bpf(2)", is_environment=True),
    ("map_create", errno.EINVAL): _NO_EXCLUSIVE_MAPS,
    ("map_create", errno.E2BIG): _NO_EXCLUSIVE_MAPS,
    ("map_hash", errno.EINVAL): Advice(
        "this kernel has no map hashes (Linux 6.18 has)", is_environment=True
    ),
    ("prog_load", errno.EPERM): _NO_PRIVILEGE,
    ("prog_load", errno.EOPNOTSUPP): Advice(
        "this kernel cannot verify signatures: it was built without "
        "CONFIG_SYSTEM_DATA_VERIFICATION",
        is_environment=True,
    ),
    ("prog_load", errno.ENOKEY): Advice(
        "the keyring holds no key that made this signature: --certificate FILE"
    ),
    ("prog_load", errno.EKEYREVOKED): Advice(
        "the key or its keyring is revoked: sign with another key"
    ),
    ("prog_load", errno.ENOPKG): Advice(
        "the kernel lacks the digest or algorithm: sign with RSA and sha256"
    ),
    ("prog_load", errno.EKEYREJECTED): Advice(
        "what was signed is not what is loaded: bpfseal verify"
    ),
    ("prog_load", errno.EBADMSG): Advice(
        "the signature is no CMS message that kernels read: bpfseal inspect"
    ),
    ("prog_run", errno.EBADMSG): _OTHER_METADATA,
    ("prog_run", errno.ENOENT): Advice(
        "a program names a function or type that this kernel lacks: --trace-loader tells which"
    ),
}
"""By step and errno."""


def advise(error: KernelError, signed: SignedLoader, accepted_scheme: str | None) -> Advice:
    """Return what a refusal of a load means.

    Args:
        error: the refusal.
        signed: what was to be loaded.
        accepted_scheme: the scheme of the loaders that the kernel takes, if that is known.
    """
    scheme = signed.loader.scheme
    if scheme.signed_parts and not signed.signatures and error.step in ("prog_load", "prog_run"):
        return Advice(f"the loader is not signed: bpfseal sign, or --scheme {UNSIGNED.name}")
    known = _ADVICE.get((error.step, error.errno), Advice(""))
    if known is _NO_EXCLUSIVE_MAPS and not signed.signatures:
        return Advice("")
    is_other = scheme.signed_parts and accepted_scheme not in (None, scheme.name)
    explains_itself = known.is_environment or error.errno == errno.ENOKEY
    if is_other and error.step != "prog_run" and not explains_itself:
        return Advice(f"this kernel takes another scheme: --scheme {accepted_scheme}")
    return known
