"""What Linux releases make of signed loaders, as data.

One `Release` for each kernel that a verdict can be about; the names are those of the kernel model's
profiles. Facts that were measured say on which kernel: the ones of Debian's archive, 6.18.15 to
7.3.4, and a 6.18.44 with the stable updates of that time. What no kernel was measured for is taken
from the kernel's source, and says so.

Example:
    >>> RELEASES["7.3"].covers_bound_maps, RELEASES["6.18"].has_excl
    (True, 'some')
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from bpfseal.scheme import Part

Answer = Literal["yes", "no", "some"]
"""Whether kernels of a release have something; ``some``: it depends on the update or the build."""

Payload = tuple[Part, ...]
"""What is hashed for a signature: these parts, one right after the other."""

MAX_SIGNATURE_SIZE = 8192
"""Bytes of the largest signature that kernels take: KMALLOC_MAX_CACHE_SIZE with 4 KiB pages.

Measured on 6.18.15, 6.19.14, 7.0.13, 7.1.13, 7.2.12 and 7.3.4: 8192 is taken, 8193 is -EINVAL.
"""

ML_DSA = ("mldsa44", "mldsa65", "mldsa87")


NAMED_ALGORITHMS = frozenset({"rsa", "ecdsa", "ecrdsa"})
"""The signature algorithms that every release's PKCS #7 parser knows by name.

``ecrdsa`` is GOST R 34.10-2012 (``pkcs7_sig_note_pkey_algo``). A name is not a key: no key of such
a kind can be checked here, nor in the kernels that were measured.
"""


@dataclass(frozen=True, slots=True)
class KernelCrypto:
    """What one kernel can compute, and what its parsers know.

    Attributes:
        digests: the digests that it can compute. One that its parser knows and that it cannot
            compute makes a signature *skipped*, not refused.
        algorithms: the signature algorithms that it can verify with.
        named: the signature algorithms that its parsers know by name.
    """

    digests: frozenset[str]
    algorithms: frozenset[str]
    named: frozenset[str]

    def has_digest(self, name: str) -> bool:
        """Whether the kernel can compute a digest."""
        return name in self.digests


@dataclass(frozen=True, slots=True)
class Release:
    """The facts of one kernel release, or of one series of patches on it.

    Attributes:
        name: ``6.18``, ..., also the name of the kernel model's profile.
        title: one line for people.
        signed_parts: what a signature covers when a load gives the kernel all that it can cover.
        has_verify_kfunc: the kernel has the kfunc ``bpf_loader_verify_metadata``.
        has_excl: whether ``struct bpf_map`` has the field ``excl`` behind ``sha``, which loaders of
            the scheme ``inline`` read.
        digests: whether each digest (`bpfseal.signing.oids.DIGESTS`) is there without a module.
        algorithms: whether the kernel verifies with ``rsa``, ``ecdsa``, ``mldsa44``, ...
        named_algorithms: the signature algorithms that the kernel's parsers know by name.
        empty_signature_errno: the answer to a signature of no bytes.
        sources: where each fact is from, by the name of its attribute.
    """

    name: str
    title: str
    signed_parts: Payload
    has_verify_kfunc: bool
    has_excl: Answer
    digests: Mapping[str, Answer]
    algorithms: Mapping[str, Answer]
    named_algorithms: frozenset[str]
    empty_signature_errno: int
    sources: Mapping[str, str]

    @property
    def covers_bound_maps(self) -> bool:
        """The kernel itself holds the signature against the contents of the maps of a load."""
        return "metadata" in self.signed_parts

    @property
    def payloads(self) -> tuple[Payload, ...]:
        """What the kernel may hash, depending on what a load brings.

        A load that brings no BTF (``prog_btf_fd``), or binds no map (``fd_array_cnt``), has its
        signature held against the instructions alone.
        """
        alone: Payload = ("insns",)
        return (alone,) if self.signed_parts == alone else (self.signed_parts, alone)

    def crypto(self, *, full: bool = True) -> KernelCrypto:
        """Return what a kernel of this release can compute.

        Args:
            full: the build that has all that some kernels of the release have; else the one that
                has only what all of them have.
        """
        lacking = {"no"} if full else {"no", "some"}

        def present(answers: Mapping[str, Answer]) -> frozenset[str]:
            return frozenset(name for name, answer in answers.items() if answer not in lacking)

        return KernelCrypto(
            digests=present(self.digests),
            algorithms=present(self.algorithms),
            named=self.named_algorithms,
        )

    def has_digest(self, name: str) -> Answer:
        """Whether the release has a digest; one that its parser does not know is ``no``."""
        return self.digests.get(name, "no")

    def has_algorithm(self, name: str) -> Answer:
        """Whether the release verifies signatures of an algorithm."""
        return self.algorithms.get(name, "no")


def _digests(sha512: Answer, sha3: Answer) -> Mapping[str, Answer]:
    return MappingProxyType(
        {
            **dict.fromkeys(("sha1", "sha224", "sha256"), "yes"),
            **dict.fromkeys(("sha384", "sha512"), sha512),
            **dict.fromkeys(("sha3-256", "sha3-384", "sha3-512"), sha3),
        }
    )


def _algorithms(ml_dsa: Answer) -> Mapping[str, Answer]:
    return MappingProxyType({"rsa": "yes", "ecdsa": "yes", **dict.fromkeys(ML_DSA, ml_dsa)})


_SIGNED_PARTS_ONE = "measured: a signature over insns || contents of the map is -EKEYREJECTED"
_SIGNED_PARTS_TWO = "measured on 7.3.4: with fd_array_cnt=1 only insns || contents of the map loads"
_NO_EXCL = 'loading a loader that reads it is -EACCES, "cannot access ptr member ops with moff 32"'


def _release(
    name: str,
    title: str,
    measured_on: str,
    *,
    signed_parts: Payload = ("insns",),
    has_verify_kfunc: bool = False,
    has_excl: Answer = "no",
    sha512: Answer = "yes",
    sha3: Answer = "no",
    ml_dsa: Answer = "no",
    names_ml_dsa: bool = True,
    empty_signature_errno: int = errno.EBADMSG,
    sources: Mapping[str, str] = MappingProxyType({}),
) -> Release:
    """Return a release; what is not given, sources by attribute too, is as in most of them."""
    usual = {
        "signed_parts": f"{_SIGNED_PARTS_ONE} on {measured_on}",
        "has_verify_kfunc": "a series of May 2026 that no release has taken",
        "has_excl": f"measured on {measured_on}: {_NO_EXCL}",
        "digests": f"measured on {measured_on}, Debian's configuration",
        "algorithms": f"measured on {measured_on}: RSA PKCS#1 v1.5 and ECDSA load, "
        "RSA-PSS is -ENOPKG",
        "named_algorithms": f"measured on {measured_on}: a SignerInfo of an unknown signer with "
        "this name is passed over",
        "empty_signature_errno": f"measured on {measured_on}",
    }
    return Release(
        name=name,
        title=title,
        signed_parts=signed_parts,
        has_verify_kfunc=has_verify_kfunc,
        has_excl=has_excl,
        digests=_digests(sha512, sha3),
        algorithms=_algorithms(ml_dsa),
        named_algorithms=NAMED_ALGORITHMS | (frozenset(ML_DSA) if names_ml_dsa else frozenset()),
        empty_signature_errno=empty_signature_errno,
        sources=MappingProxyType({**usual, **sources}),
    )


_ALL = (
    _release(
        "kfunc",
        "the May 2026 series with the kfunc bpf_loader_verify_metadata, on Linux 7.2",
        "7.2 with the series",
        signed_parts=("insns", "btf"),
        has_verify_kfunc=True,
        has_excl="some",
        sha512="some",
        sources={
            "signed_parts": "measured: a signature over insns alone with a BTF given is "
            "-EKEYREJECTED",
            "has_excl": "not part of the series: the kernel that it is applied to decides",
            "digests": "as 7.2, which it was measured on",
        },
    ),
    _release(
        "6.18",
        "Linux 6.18 and its stable updates",
        "6.18.15",
        has_excl="some",
        sha3="yes",
        names_ml_dsa=False,
        sources={"has_excl": f"measured: 6.18.15 no ({_NO_EXCL}), 6.18.44 yes"},
    ),
    _release(
        "6.19",
        "Linux 6.19",
        "6.19.14",
        sha3="yes",
        names_ml_dsa=False,
        sources={
            "named_algorithms": "read: ML-DSA came with 7.0 (crypto/asymmetric_keys/pkcs7_parser.c)"
        },
    ),
    _release("7.0", "Linux 7.0", "7.0.13", sha3="yes"),
    _release(
        "7.1",
        "Linux 7.1",
        "7.1.13",
        has_excl="some",
        sha512="no",
        sources={
            "has_excl": "measured: 7.1.3 no, 7.1.13 yes",
            "digests": "measured on 7.1.3 and 7.1.13: sha384, sha512 and sha3-256 are modules, "
            "-ENOPKG",
        },
    ),
    _release(
        "7.2",
        "Linux 7.2",
        "7.2.12",
        has_excl="yes",
        sha512="some",
        sources={
            "has_excl": "measured on several kernels of 7.2",
            "digests": "measured: sha384 and sha512 are -ENOPKG on 7.2.6 and load on 7.2.12, "
            "sha3-256 is -ENOPKG on both",
        },
    ),
    _release(
        "7.3",
        "Linux 7.3: the signature covers the metadata map",
        "7.3.4",
        signed_parts=("insns", "metadata"),
        empty_signature_errno=errno.EINVAL,
        sources={"signed_parts": _SIGNED_PARTS_TWO},
    ),
    _release(
        "7.3+bpf-keyring",
        "after 7.3: the same, with a keyring .bpf and ML-DSA",
        "7.3.4",
        signed_parts=("insns", "metadata"),
        ml_dsa="some",
        empty_signature_errno=errno.EINVAL,
        sources={
            "signed_parts": _SIGNED_PARTS_TWO,
            "algorithms": "as 7.3; ML-DSA where CONFIG_CRYPTO_MLDSA is set",
        },
    ),
)

RELEASES: Mapping[str, Release] = MappingProxyType({release.name: release for release in _ALL})
"""All releases by name, in the order in which signed loaders developed, the series first."""


def names_of(where: Callable[[Release], bool]) -> str:
    """Return the names of the releases that something holds for, as text for a message.

    Example:
        >>> names_of(lambda release: release.covers_bound_maps)
        '7.3, 7.3+bpf-keyring'
    """
    return ", ".join(release.name for release in _ALL if where(release))


def digests_of(releases: Iterable[Release]) -> frozenset[str]:
    """Return the digests that at least some kernels of these releases have."""
    return frozenset(
        name for release in releases for name, answer in release.digests.items() if answer != "no"
    )


ANY_KERNEL = KernelCrypto(
    digests=digests_of(_ALL),
    algorithms=frozenset().union(*(release.crypto().algorithms for release in _ALL)),
    named=frozenset().union(*(release.crypto().named for release in _ALL)),
)
"""A kernel that can do all that any release can."""

PERMISSIVE = KernelCrypto(
    digests=frozenset(), algorithms=ANY_KERNEL.algorithms, named=ANY_KERNEL.named
)
"""A kernel that can read all that any kernel can read.

What a kernel cannot compute it does not check: without digests, no certificate that a message
brings is refused for a bad signature of its own.
"""

NEWEST = RELEASES["7.3+bpf-keyring"].crypto()
"""What the newest kernel can compute."""
