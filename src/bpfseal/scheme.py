"""The schemes of signed BPF loaders, as data.

A scheme says what a signature covers and who checks the metadata. What a scheme emits into the
loader lives in `bpfseal.loader.checks`; everything else that differs between schemes is here, once.

Example:
    >>> SCHEMES["kfunc"].signed_parts
    ('insns', 'btf')
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Literal

Part = Literal["insns", "btf", "metadata"]
"""A part of a loader that a signature can cover."""


@dataclass(frozen=True, slots=True)
class Scheme:
    """One design of a signed loader.

    Attributes:
        name: the name used on the command line and in bundles.
        title: one line for people.
        signed_parts: the parts of the loader that the signature covers, in signed order.
        has_loader_btf: the loader comes with a BTF of its own, given as ``prog_btf_fd``.
        wants_map_hash: user space must ask for the metadata map's hash (BPF_OBJ_GET_INFO_BY_FD)
            before the load, because the loader's instructions read ``map->sha``.
        binds_metadata: ``fd_array_cnt`` is 1, so that the kernel itself covers the metadata.
        copies_host_values: a signed loader takes ``max_entries`` and ``initial_value`` from the
            host's context (generators before June 2026).
        mismatch_errno: what a loader returns when its metadata is not what it expects.
    """

    name: str
    title: str
    signed_parts: tuple[Part, ...]
    has_loader_btf: bool = False
    wants_map_hash: bool = False
    binds_metadata: bool = False
    copies_host_values: bool = False
    mismatch_errno: int = errno.EINVAL


KFUNC = Scheme(
    name="kfunc",
    title="the kfunc bpf_loader_verify_metadata checks the metadata",
    signed_parts=("insns", "btf"),
    has_loader_btf=True,
    copies_host_values=True,
    mismatch_errno=errno.EBADMSG,
)

INLINE_ORIGINAL = Scheme(
    name="inline-original",
    title="the loader compares map->sha with its digest (Linux 6.18 to 7.2)",
    signed_parts=("insns",),
    wants_map_hash=True,
    copies_host_values=True,
)

INLINE = Scheme(
    name="inline",
    title="the same, and the loader demands an exclusive map (kernels with bpf_map.excl)",
    signed_parts=("insns",),
    wants_map_hash=True,
)

LOADTIME = Scheme(
    name="loadtime",
    title="the kernel covers the metadata when it verifies the signature (Linux 7.3)",
    signed_parts=("insns", "metadata"),
    binds_metadata=True,
)

UNSIGNED = Scheme(
    name="unsigned",
    title="nobody checks anything",
    signed_parts=(),
    copies_host_values=True,
)

SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme for scheme in (KFUNC, INLINE_ORIGINAL, INLINE, LOADTIME, UNSIGNED)
}
"""All schemes by name."""

STRONGEST_FIRST = (LOADTIME, KFUNC, INLINE, INLINE_ORIGINAL)
"""The signed schemes, what a kernel itself checks first, then the loaders that look at more."""

SIGNED_SCHEMES = tuple(name for name, scheme in SCHEMES.items() if scheme.signed_parts)
"""The names of the schemes that have a signature."""
