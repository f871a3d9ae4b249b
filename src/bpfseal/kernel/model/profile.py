"""What differs between kernels, as data: one profile for each kernel that the model can be.

Example:
    >>> "bpf_loader_verify_metadata" in KFUNC_SERIES.kfuncs
    True
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from bpfseal.bpf.uapi import ProgType
from bpfseal.scheme import Part

VERIFY_METADATA = "bpf_loader_verify_metadata"
"""The kfunc of the seed patch."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The facts of one kernel.

    Attributes:
        name: the name on the command line (``model:NAME``).
        description: one line for people.
        signed_parts: what a program's signature covers, in order.
        max_signature_size: the largest signature in bytes (KMALLOC_MAX_CACHE_SIZE).
        attr_size: bytes of ``union bpf_attr``.
        max_insns: the most instruction slots of a program (BPF_COMPLEXITY_LIMIT_INSNS).
        possible_cpus: values in one element of a per-CPU map.
        kfuncs: the kfuncs that the kernel has, and the program types that may call each.
    """

    name: str
    description: str
    signed_parts: tuple[Part, ...]
    max_signature_size: int = 8192
    attr_size: int = 168
    max_insns: int = 1_000_000
    possible_cpus: int = 1
    kfuncs: Mapping[str, frozenset[ProgType]] = field(default_factory=lambda: MappingProxyType({}))


KFUNC_SERIES = Profile(
    name="kfunc",
    description="the May 2026 series with the kfunc bpf_loader_verify_metadata, on Linux 7.2",
    signed_parts=("insns", "btf"),
    kfuncs=MappingProxyType({VERIFY_METADATA: frozenset({ProgType.SYSCALL})}),
)

PROFILES: dict[str, Profile] = {profile.name: profile for profile in (KFUNC_SERIES,)}
"""All profiles by name."""
