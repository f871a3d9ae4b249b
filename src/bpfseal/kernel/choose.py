"""Load whichever variant of a bundle a kernel takes.

The rule is that of the C skeletons (`bpfseal.bundle.skeleton_runtime`): the variants are tried in
the order of `SCHEME_ORDER` with each of their signatures, the next one only if the kernel refused
to take the loader for its format or its key, and never an unsigned one after a signed one.

Example:
    >>> loaded = load_bundle(kernel, bundle)  # doctest: +SKIP
    >>> loaded.prog_fds["on_exec"]  # doctest: +SKIP
    9
"""

from __future__ import annotations

import errno
from typing import Final

from bpfseal.bundle.model import Bundle
from bpfseal.bundle.skeleton_variants import chosen_variants
from bpfseal.errors import KernelError, UsageError
from bpfseal.kernel.load import KEY_SPEC_SESSION_KEYRING, LoadedSkeleton, load
from bpfseal.kernel.protocol import Kernel

REFUSED_STEPS: Final = ("map_hash", "btf_load", "prog_load")
"""The steps in which a kernel does not take a loader; nothing of it has run yet."""

_WEIGHTS: Final = {
    errno.EKEYREJECTED: 1,  # what a signature of another format gets
    errno.E2BIG: 2,
    errno.EACCES: 2,
    errno.EINVAL: 2,
    errno.ENOENT: 2,
    errno.ENOPKG: 2,
    errno.ENOKEY: 3,
}
"""The refusals after which another variant is tried, and how much each tells."""


def load_bundle(
    kernel: Kernel, bundle: Bundle, *, keyring_id: int = KEY_SPEC_SESSION_KEYRING
) -> LoadedSkeleton:
    """Load and run the first variant that the kernel takes.

    Args:
        kernel: the kernel to load on.
        bundle: signed variants, or one that is unsigned.
        keyring_id: where the kernel looks for the signer's key.

    Returns:
        The fds of maps and programs, which belong to the caller.

    Raises:
        UsageError: a variant that should be signed is not.
        VerificationError: the metadata is not what the signed instructions vouch for.
        KernelError: the kernel refused; of several refusals the one that tells most.
    """
    told: KernelError | None = None
    for variant in chosen_variants(bundle):
        for number in range(len(variant.signatures) or 1):
            try:
                return load(kernel, variant, signature=number, keyring_id=keyring_id)
            except KernelError as error:
                weight = _WEIGHTS.get(error.errno, 0) if error.step in REFUSED_STEPS else 0
                if not weight:
                    raise
                if told is None or weight > _WEIGHTS[told.errno]:
                    told = error
    raise told or UsageError("the bundle holds no loader")
