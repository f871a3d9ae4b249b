"""What the running kernel can do for signed loaders, found out by features, never by version.

Distributions backport, so a release number says little. A kernel's own BTF says which kfuncs it has
and which fields its structs have.

Example:
    >>> find_features(Btf.from_bytes(RUNNING_BTF.read_bytes(), trusted=True))  # doctest: +SKIP
    Features(kfunc=..., loadtime=..., exclusive_flag=..., map_hash=...)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from bpfseal.btf.btf import Btf
from bpfseal.btf.kinds import Kind
from bpfseal.errors import InputError
from bpfseal.loader.checks import VERIFY_KFUNC
from bpfseal.scheme import INLINE, INLINE_ORIGINAL, KFUNC, LOADTIME, STRONGEST_FIRST

RUNNING_BTF: Final = Path("/sys/kernel/btf/vmlinux")


@dataclass(frozen=True, slots=True)
class Finding:
    """An answer about a kernel.

    Attributes:
        answer: yes, no, or ``None`` for "could not tell".
        reason: what says so, one line.
    """

    answer: bool | None
    reason: str


@dataclass(frozen=True, slots=True)
class Features:
    """What a kernel has for signed loaders.

    The attributes' names are those that ``bpfseal probe`` prints.

    Attributes:
        kfunc: the kfunc ``bpf_loader_verify_metadata`` (May 2026 series).
        loadtime: BPF_PROG_LOAD covers bound maps by the signature (Linux 7.3).
        exclusive_flag: ``struct bpf_map`` has `excl`, which the hardened inline check reads.
        map_hash: ``struct bpf_map`` has `sha`: exclusive maps and map hashes (Linux 6.18).
    """

    kfunc: Finding
    loadtime: Finding
    exclusive_flag: Finding
    map_hash: Finding

    def scheme(self) -> str | None:
        """Return the scheme of the loaders that this kernel takes, or ``None`` if none.

        It is the strongest of those whose feature is there.
        """
        needed = {
            LOADTIME: self.loadtime,
            KFUNC: self.kfunc,
            INLINE: self.exclusive_flag,
            INLINE_ORIGINAL: self.map_hash,
        }
        return next((scheme.name for scheme in STRONGEST_FIRST if needed[scheme].answer), None)


@cache
def running_features() -> Features:
    """Return the features of the running kernel, read once: they do not change."""
    try:
        raw = RUNNING_BTF.read_bytes()
        btf = Btf.from_bytes(raw, str(RUNNING_BTF), trusted=True)
    except OSError as error:
        unknown = Finding(None, f"{RUNNING_BTF} cannot be read: {error.strerror}")
    except InputError as error:
        unknown = Finding(None, str(error))
    else:
        return find_features(btf)
    return Features(unknown, unknown, unknown, unknown)


def find_features(btf: Btf) -> Features:
    """Return the features of the kernel that a BTF describes."""
    kfunc = btf.find(VERIFY_KFUNC, Kind.FUNC) is not None
    return Features(
        kfunc=Finding(kfunc, f"BTF {'has' if kfunc else 'lacks'} the function {VERIFY_KFUNC}"),
        loadtime=_has_member(btf, "bpf_verifier_env", "signature"),
        exclusive_flag=_has_member(btf, "bpf_map", "excl"),
        map_hash=_has_member(btf, "bpf_map", "sha"),
    )


def _has_member(btf: Btf, struct: str, member: str) -> Finding:
    type_id = btf.find(struct, Kind.STRUCT)
    if type_id is None:
        return Finding(None, f"BTF has no struct {struct}")
    found = any(entry.name == member for entry in btf.members(type_id))
    return Finding(found, f"struct {struct} {'has' if found else 'lacks'} the field {member}")
