"""bpfseal: the toolchain for signed BPF loaders.

Example:
    >>> with bpfseal.load("exectrace.bpfseal") as skel:  # doctest: +SKIP
    ...     skel.attach()
    ...     print(skel.bss.seen, dict(skel.maps.started.items()))
"""

from __future__ import annotations

TYPE_CHECKING = False  # not from typing: a signal that comes meanwhile would end in a traceback
if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from bpfseal.bundle.model import Bundle
    from bpfseal.kernel.protocol import MapKernel
    from bpfseal.skeleton.skeleton import Skeleton

__version__ = "0.1.0"
__all__ = ["__version__", "load", "read"]


def load(
    bundle: Bundle | str | os.PathLike[str] | bytes | bytearray | memoryview,
    kernel: MapKernel | None = None,
    *,
    scheme: str = "auto",
    keyring_id: int = -3,
    rodata: Mapping[str, object] | None = None,
    max_entries: Mapping[str, int] | None = None,
) -> Skeleton:
    """Load a bundle and return its skeleton: maps, global variables, programs, links.

    What each argument means, and what is raised, stands at `bpfseal.skeleton.skeleton.load`.
    """
    from bpfseal.skeleton import skeleton  # importing bpfseal alone stays cheap

    return skeleton.load(
        bundle,
        kernel,
        scheme=scheme,
        keyring_id=keyring_id,
        rodata=rodata,
        max_entries=max_entries,
    )


def read(bundle: str | os.PathLike[str] | bytes | bytearray | memoryview) -> Bundle:
    """Read a bundle as a value, which can be verified, and then loaded as it was verified.

    What it takes, and what is raised, stands at `bpfseal.skeleton.skeleton.read`.
    """
    from bpfseal.skeleton import skeleton

    return skeleton.read(bundle)
