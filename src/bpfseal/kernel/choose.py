"""Load the variant of a bundle that a kernel takes.

Without a scheme the kernel's features choose: the strongest scheme that it takes. A bundle that
lacks it, or has it without a signature, is refused, since whoever leaves a variant out must not
make a weaker check do. Where features tell nothing, signed variants are tried from the strongest
on, the next one only if the kernel refused to take the loader for its format or its key. That is
the rule of the C skeletons, too (`bpfseal.bundle.skeleton_runtime`). A loader that nobody signed is
loaded only if that is asked for.

Example:
    >>> loaded = load_bundle(kernel, bundle)  # doctest: +SKIP
    >>> loaded.signed.loader.scheme_name, loaded.prog_fds["on_exec"]  # doctest: +SKIP
    ('loadtime', 9)
"""

from __future__ import annotations

import errno
from typing import Final

from bpfseal.bpf.uapi import KeyringId
from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.bundle.variants import loadable_variants
from bpfseal.errors import KernelError, UsageError, VerificationError
from bpfseal.kernel.load import (
    REFUSED_STEPS,
    HostValues,
    LoadedSkeleton,
    load,
)
from bpfseal.kernel.protocol import Kernel
from bpfseal.scheme import UNSIGNED

AUTO: Final = "auto"
"""In place of a scheme: what the kernel takes."""

_WEIGHTS: Final = {
    errno.EKEYREJECTED: 1,  # what a signature of another format gets
    errno.E2BIG: 2,
    errno.EACCES: 2,
    errno.EINVAL: 2,
    errno.ENOENT: 2,
    errno.ENOPKG: 2,
    errno.ENOKEY: 3,
}
"""The refusals after which another signature or variant is tried, and how much each tells."""


def load_bundle(
    kernel: Kernel,
    bundle: Bundle,
    *,
    scheme: str = AUTO,
    keyring_id: int = KeyringId.SESSION,
    check_metadata: bool = True,
    host_values: HostValues | None = None,
) -> LoadedSkeleton:
    """Load and run the variant that the kernel takes, or that of a scheme.

    Args:
        kernel: the kernel to load on.
        bundle: its variants.
        scheme: the variant to load. All of them take signed loaders only, but for ``unsigned``,
            which takes one without signatures only.
        keyring_id: where the kernel looks for the signer's key.
        check_metadata: compare the metadata with the digest in the instructions first (see `load`).
        host_values: what the host sets in place of the signer's values (see `load`).

    Returns:
        What was loaded. The fds of maps and programs belong to the caller.

    Raises:
        UsageError: the bundle has no such variant.
        InputError: the variants contradict each other.
        VerificationError: the variant of `scheme` is not signed and should be; ``auto`` found no
            signed variant of the scheme that the kernel takes; or the metadata is not what the
            signed instructions vouch for.
        KernelError: the kernel refused; of several refusals the one that tells most.
    """
    told: KernelError | None = None
    for variant in _candidates(kernel, bundle, scheme):
        for number in range(len(variant.signatures) or 1):
            try:
                return load(
                    kernel,
                    variant,
                    signature=number,
                    unsigned=scheme == UNSIGNED.name,
                    keyring_id=keyring_id,
                    check_metadata=check_metadata,
                    host_values=host_values,
                )
            except KernelError as error:
                weight = _WEIGHTS.get(error.errno, 0) if error.step in REFUSED_STEPS else 0
                if not weight:
                    raise
                if told is None or weight > _WEIGHTS[told.errno]:
                    told = error
    raise told or UsageError("the bundle holds no loader")


def _candidates(kernel: Kernel, bundle: Bundle, scheme: str) -> tuple[SignedLoader, ...]:
    """Return the variants to try, in order."""
    if scheme != AUTO:
        return (bundle.variant(scheme),)
    if not any(variant.signatures for variant in bundle.variants):
        raise VerificationError(
            "nothing in the bundle is signed",
            hint=f"bpfseal sign, or --scheme {UNSIGNED.name} of an object",
        )
    variants = loadable_variants(bundle)
    wanted = kernel.accepted_scheme()
    if wanted is None:
        return variants
    have = [variant.loader.scheme_name for variant in variants]
    if wanted in have:
        return (variants[have.index(wanted)],)
    hint = f"signed are {', '.join(have)}; --scheme asks the kernel about one all the same"
    if any(variant.loader.scheme_name == wanted for variant in bundle.variants):
        raise VerificationError(
            f"the variant {wanted}, which this kernel takes, is not signed", hint=hint
        )
    raise VerificationError(f"no variant for scheme {wanted}, which this kernel takes", hint=hint)
