"""Where a signed loader loads, and who checks its metadata there.

A signature that verifies says little: the metadata is part of what runs, and it depends on the
kernel who looks at it. `admission` answers for one kernel release, from three things: the parts
that the signature covers, what the instructions check themselves, and the facts of the release
(`bpfseal.release`). The answer is about every way in which somebody who has the artifact can load
it there, not only about the way that its scheme is made for: with or without the loader's BTF,
with or without binding the map.

The case to find is the **downgrade trap**: a release loads the artifact, and nobody there checks
the metadata (docs/verification.md).

Example:
    >>> from bpfseal.release import RELEASES
    >>> facts = LoaderFacts(check=None, metadata_matches=False, uses_map=True)
    >>> admission(RELEASES["6.18"], ("insns",), facts).checked_by
    'nobody'
    >>> admission(RELEASES["7.3"], ("insns",), facts).text
    '-EACCES: the signature does not cover the map that the loader uses'
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from bpfseal.bpf import opcodes as op
from bpfseal.bpf.insn import INSN_SIZE, ByteOrder, decode_insns, ld_imm64
from bpfseal.errors import InputError, errno_name
from bpfseal.loader.check_block import carried_digest
from bpfseal.loader.checks import CHECKS, LOADER_BTF
from bpfseal.loader.emitter import PROLOGUE_SLOTS, R1
from bpfseal.loader.model import Loader
from bpfseal.release import RELEASES, Answer, Payload, Release
from bpfseal.scheme import KFUNC, SCHEMES

CheckedBy = Literal["kernel", "kfunc", "loader", "nobody"]
"""Who checks the metadata: the kernel with the signature, the kfunc that the loader calls, the
loader's own comparison, or nobody."""

_BLOCK_SLOTS = 64
"""More slots than any check block has."""

_MAP_REFERENCES = (
    op.PSEUDO_MAP_FD,
    op.PSEUDO_MAP_VALUE,
    op.PSEUDO_MAP_IDX,
    op.PSEUDO_MAP_IDX_VALUE,
)
_FIRST_OF_BLOCK: Mapping[ByteOrder, bytes] = MappingProxyType(
    {
        "little": ld_imm64(R1, op.PSEUDO_MAP_IDX, 0)[0].encode("little"),
        "big": ld_imm64(R1, op.PSEUDO_MAP_IDX, 0)[0].encode("big"),
    }
)
"""The slot that every check block begins with."""

_BTF_MAGIC = (b"\x9f\xeb", b"\xeb\x9f")

NOT_EXCLUSIVE = (
    "the loader does not ask whether the map is exclusive: another BPF program can change the "
    "metadata between check and use"
)
"""What is missing in a check by ``inline-original``."""


@dataclass(frozen=True, slots=True)
class LoaderFacts:
    """What the verdict depends on in a loader.

    Attributes:
        check: the scheme whose check block the instructions begin with, or None.
        metadata_matches: the digest in that block is that of the metadata.
        uses_map: some instruction refers to a map.
        metadata_is_opaque: the metadata can be neither instructions nor BTF, so that a signature
            over instructions and metadata is not one over a longer program, or over a program and
            its BTF.
        carried_by: the scheme of the check block, whether or not it counts, or None without one.
        carried: the digest in that block, or None.
    """

    check: str | None
    metadata_matches: bool
    uses_map: bool
    metadata_is_opaque: bool = True
    carried_by: str | None = None
    carried: bytes | None = None

    @classmethod
    def of(cls, loader: Loader) -> LoaderFacts:
        """Read the facts out of a loader.

        A check by the kfunc counts only together with the loader BTF that names that kfunc.

        Raises:
            InputError: the instructions are not whole slots.
        """
        if len(loader.insns) % INSN_SIZE:
            raise InputError(f"{len(loader.insns)} bytes of instructions are not whole slots")
        carried_by, digest = _find_check(loader)
        check = carried_by
        if check == KFUNC.name and loader.btf not in (LOADER_BTF, b""):
            check = None
        return cls(
            check=check,
            metadata_matches=check is not None and digest == loader.metadata_digest,
            uses_map=check is not None or _uses_map(loader.insns, loader.byteorder),
            metadata_is_opaque=_is_opaque(loader.insns, loader.metadata),
            carried_by=carried_by,
            carried=digest,
        )


@dataclass(frozen=True, slots=True)
class Admission:
    """What one kernel release makes of an artifact.

    Attributes:
        release: the kernel.
        loads: whether it can be loaded and run there; ``some`` depends on the update or the build.
        checked_by: who checks the metadata where it is loaded; None where it is never loaded.
        errno: the positive errno of a refusal, also that by ``some``; 0 without one.
        reason: why it is refused, or what is weak about the check; may be empty.
    """

    release: Release
    loads: Answer
    checked_by: CheckedBy | None = None
    errno: int = 0
    reason: str = ""

    @property
    def is_unchecked(self) -> bool:
        """It loads, with metadata that nobody checks."""
        return self.checked_by == "nobody"

    @property
    def is_weak(self) -> bool:
        """It loads, and the check can be got around by who controls other BPF programs."""
        return self.reason == NOT_EXCLUSIVE

    @property
    def text(self) -> str:
        """The reason, after the errno if there is one."""
        if not self.errno:
            return self.reason
        return f"-{errno_name(self.errno)}: {self.reason}"


@dataclass(frozen=True, slots=True)
class SignatureAnswer:
    """What the kernels of one release say to a signature over what they hash.

    Attributes:
        loads: whether they take it; ``some`` depends on the build.
        errno: the positive errno of a refusal, also that by ``some``; 0 without one.
        reason: why it is refused.
    """

    loads: Answer = "yes"
    errno: int = 0
    reason: str = ""


TAKEN = SignatureAnswer()
"""The signature is good, and by a key that the kernel trusts."""


def admission(
    release: Release, payload: Payload, facts: LoaderFacts, signature: SignatureAnswer = TAKEN
) -> Admission:
    """Return what a release makes of a loader with a signature over some of its parts.

    Args:
        release: the kernel.
        payload: the parts that the signature covers.
        facts: what the loader does.
        signature: what the kernel says to the signature as such.
    """
    if signature.loads == "no":
        return Admission(release, "no", None, signature.errno, signature.reason)
    found = _without_cryptography(release, payload, facts)
    if found.loads == "yes" and signature.loads == "some" and not found.is_unchecked:
        return Admission(release, "some", found.checked_by, signature.errno, signature.reason)
    return found


def admissions(
    loader: Loader,
    payload: Payload,
    *,
    facts: LoaderFacts | None = None,
    releases: Iterable[Release] = RELEASES.values(),
) -> tuple[Admission, ...]:
    """Return `admission` for each release, with a good signature by a key that it trusts.

    Args:
        loader: the loader.
        payload: the parts that the signature covers.
        facts: the loader's, where they are known already.
        releases: the kernels.

    Raises:
        InputError: the instructions are not whole slots.
    """
    facts = facts or LoaderFacts.of(loader)
    hashed = without_empty(loader, payload)
    return tuple(admission(release, hashed, facts) for release in releases)


def without_empty(loader: Loader, payload: Payload) -> Payload:
    """Return the parts of a payload that have bytes: the others add nothing to what is hashed."""
    parts = {"insns": loader.insns, "btf": loader.btf, "metadata": loader.metadata}
    return tuple(part for part in payload if parts[part])


def _without_cryptography(release: Release, payload: Payload, facts: LoaderFacts) -> Admission:
    if payload not in release.payloads:
        if "metadata" in payload and not facts.metadata_is_opaque:
            reason = "the metadata can be passed as more instructions or as BTF"
            return Admission(release, "yes", "nobody", 0, reason)
        reason = f"the kernel holds the signature against {describe(release.signed_parts)}"
        return Admission(release, "no", None, errno.EKEYREJECTED, reason)
    if release.covers_bound_maps and payload == ("insns",) and facts.uses_map:
        # kernel/bpf/verifier.c of 7.3; measured on 7.3.4 with fd_array_cnt = 0.
        reason = "the signature does not cover the map that the loader uses"
        return Admission(release, "no", None, errno.EACCES, reason)
    if facts.check == KFUNC.name and not (release.has_verify_kfunc and "btf" in payload):
        # do_check: a call with a src_reg that it does not know, or a kfunc without BTF.
        reason = "the loader calls bpf_loader_verify_metadata, which is not there"
        return Admission(release, "no", None, errno.EINVAL, reason)
    if facts.check == "inline" and release.has_excl == "no":
        reason = "the loader reads bpf_map.excl, which is not there"
        return Admission(release, "no", None, errno.EACCES, reason)
    if facts.check is not None and not facts.metadata_matches:
        number = SCHEMES[facts.check].mismatch_errno
        return Admission(release, "no", None, number, "the loader expects other metadata")
    if "metadata" in payload:
        return Admission(release, "yes", "kernel")
    if facts.check is None:
        return Admission(release, "yes", "nobody", 0, f"the signature covers {describe(payload)}")
    if facts.check == "inline" and release.has_excl == "some":
        reason = "some updates of the kernel have no bpf_map.excl, which the loader reads"
        return Admission(release, "some", "loader", errno.EACCES, reason)
    if facts.check == "inline-original":
        return Admission(release, "yes", "loader", 0, NOT_EXCLUSIVE)
    return Admission(release, "yes", "kfunc" if facts.check == KFUNC.name else "loader")


def describe(payload: Payload) -> str:
    """Return the names of signed parts for people, in signed order.

    Example:
        >>> describe(("insns",)), describe(("insns", "metadata"))
        ('the instructions alone', 'instructions || metadata')
    """
    names = {"insns": "instructions", "btf": "loader BTF", "metadata": "metadata"}
    if len(payload) == 1:
        return f"the {names[payload[0]]} alone"
    return " || ".join(names[part] for part in payload)


def _find_check(loader: Loader) -> tuple[str | None, bytes | None]:
    """Return the scheme whose check block is there, and the digest in it.

    Nothing behind the block matters: the program starts at slot 0 and comes to the block before
    anything else. So only the head of the program is decoded, and that only if the block begins as
    all of them do: with the address of the metadata map.
    """
    insns, byteorder = loader.insns, loader.byteorder
    jump_at = (PROLOGUE_SLOTS - 1) * INSN_SIZE
    offset = int.from_bytes(insns[jump_at + 2 : jump_at + 4], byteorder, signed=True)
    start = PROLOGUE_SLOTS + offset
    if start < PROLOGUE_SLOTS or not insns.startswith(
        _FIRST_OF_BLOCK[byteorder], start * INSN_SIZE
    ):
        return None, None
    head = insns[: (start + _BLOCK_SLOTS) * INSN_SIZE]
    for name in sorted(CHECKS, key=lambda name: name != loader.scheme_name):
        digest = carried_digest(head, SCHEMES[name], byteorder)
        if digest is not None:
            return name, digest
    return None, None


def _uses_map(insns: bytes, byteorder: ByteOrder) -> bool:
    opcodes = insns[::INSN_SIZE]
    at = opcodes.find(op.LD_IMM64)
    while at >= 0:
        (insn,) = decode_insns(insns[at * INSN_SIZE : (at + 1) * INSN_SIZE], byteorder)
        if insn.src in _MAP_REFERENCES:
            return True
        at = opcodes.find(op.LD_IMM64, at + 1)
    return False


def _is_opaque(insns: bytes, metadata: bytes) -> bool:
    """Tell whether no kernel takes the metadata as the rest of the program, or as BTF.

    A verifier looks up the opcode of every slot, reachable or not (``resolve_pseudo_ldimm64``), and
    no instruction has the opcode 0; it is the second slot of a ld_imm64 only. Generated metadata
    begins with an array of zeros.
    """
    if metadata[:2] in _BTF_MAGIC:
        return False
    if not metadata:
        return True
    ends_in_half = insns[-INSN_SIZE:][:1] == bytes([op.LD_IMM64])
    return len(metadata) % INSN_SIZE != 0 or (metadata[0] == 0 and not ends_in_half)
