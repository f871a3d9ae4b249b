"""Which kernels take the loaders of which scheme, and how the others refuse them.

What `bpfseal load` says of a good artifact on the wrong kernel follows from facts: what signatures
cover there and here, and what the loader reads. The model finds the same by loading.

Example:
    >>> expected_verdict(SCHEMES["loadtime"], PROFILES["7.2"])
    Refusal(step='prog_load', errno=129, reason='the signature covers more than the kernel hashes')
    >>> expected_verdict(SCHEMES["loadtime"], PROFILES["7.3"]) is None
    True
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import EACCES, EINVAL, EKEYREJECTED, EOPNOTSUPP

from bpfseal.errors import errno_name
from bpfseal.kernel.model.profile import Profile
from bpfseal.scheme import INLINE, STRONGEST_FIRST, Scheme


@dataclass(frozen=True, slots=True)
class Refusal:
    """How a kernel refuses a good artifact of a scheme that it does not take.

    Attributes:
        step: the step of the load (`bpfseal.kernel.load`).
        errno: the positive errno.
        reason: why, one line.
    """

    step: str
    errno: int
    reason: str

    @property
    def errno_name(self) -> str:
        """The symbolic name of the errno."""
        return errno_name(self.errno)


def expected_verdict(scheme: Scheme, profile: Profile) -> Refusal | None:
    """Return how a kernel refuses a good artifact of a scheme, or ``None`` if it loads it.

    Unsigned loaders load everywhere; whether they may is a matter of policy.
    """
    if not scheme.signed_parts:
        return None
    if not profile.has_exclusive_maps:
        return Refusal("map_create", EINVAL, "the kernel has no exclusive maps")
    if not profile.has_data_verification:
        return Refusal("prog_load", EOPNOTSUPP, "the kernel cannot verify signatures")
    if profile.verifies_in_verifier and not scheme.binds_metadata:
        if scheme.has_loader_btf:
            reason = "the signature covers a BTF, which the kernel does not hash"
            return Refusal("prog_load", EKEYREJECTED, reason)
        reason = "the kernel wants the metadata map bound by fd_array_cnt"
        return Refusal("prog_load", EACCES, reason)
    covered = tuple(part for part in profile.signed_parts if part != "btf" or scheme.has_loader_btf)
    if scheme.signed_parts != covered:
        reason = "the signature covers more than the kernel hashes"
        return Refusal("prog_load", EKEYREJECTED, reason)
    if scheme is INLINE and profile.has_excl == "no":
        reason = "the loader reads bpf_map.excl, which the kernel does not have"
        return Refusal("prog_load", EACCES, reason)
    return None


def scheme_for(profile: Profile) -> Scheme | None:
    """Return the strongest scheme of the loaders that a kernel takes, or ``None``."""
    fitting = (scheme for scheme in STRONGEST_FIRST if expected_verdict(scheme, profile) is None)
    return next(fitting, None)
