"""Is a loader signed, by a trusted key, over everything that it must cover?

A CMS message that verifies is not enough. The metadata is part of what runs, so either the
signature covers it, or the signed instructions carry its digest and check it; and the loader's BTF
says which function that check calls. And what holds on the kernel that a scheme is made for need
not hold on another one that loads the artifact too. `verify_loader` demands all of it
(docs/verification.md).

Example:
    >>> from bpfseal.bundle.model import SignedLoader
    >>> from bpfseal.loader.model import Loader, ProgramEntry
    >>> verify_loader(SignedLoader(Loader("kfunc", "x", b"", b"", b"", (), ())), [])
    Traceback (most recent call last):
    bpfseal.errors.VerificationError: not signed (sign it with: bpfseal sign)
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from bpfseal.bundle import coverage
from bpfseal.bundle.admission import (
    Admission,
    LoaderFacts,
    SignatureAnswer,
    admission,
    describe,
    without_empty,
)
from bpfseal.bundle.coverage import Coverage, Covered, LoaderPayloads
from bpfseal.bundle.derivation import check_config, open_attach_points
from bpfseal.bundle.downgrade import refuse_covered, refuse_unchecked
from bpfseal.bundle.integrity import check_digest, check_loader_btf
from bpfseal.bundle.model import SignedLoader
from bpfseal.errors import VerificationError
from bpfseal.loader.model import ProgramEntry
from bpfseal.release import NEWEST, RELEASES, KernelCrypto, Payload, Release
from bpfseal.signing import pkcs7, pkcs7_parser
from bpfseal.signing.ber import RefusedError
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.verify import VerifiedSignature, check_size, verify_signature

_PREFERENCE = {"yes": 0, "some": 1, "no": 2}


@dataclass(frozen=True, slots=True)
class LoaderVerification:
    """What was proven of a loader.

    Attributes:
        signatures: the signatures that verify with a trusted certificate; at least one.
        failures: why each other signature does not, one line each.
        payload: the parts that the signatures cover, in signed order.
        admissions: what each kernel release makes of the loader with the signature that suits it
            best.
        warnings: what is weak about the check of the metadata, one line each.
        not_covered: the programs whose attach point only the config says, which no signature
            covers; everything else in the config is what the loader says itself.
    """

    signatures: tuple[VerifiedSignature, ...]
    failures: tuple[str, ...] = ()
    payload: Payload = ()
    admissions: tuple[Admission, ...] = ()
    warnings: tuple[str, ...] = ()
    not_covered: tuple[ProgramEntry, ...] = ()


def verify_loader(
    signed: SignedLoader,
    trusted: Sequence[Certificate],
    *,
    releases: Iterable[Release] | None = None,
    at: datetime | None = None,
    enclosed: Iterable[bytes] = (),
) -> LoaderVerification:
    """Verify a loader: its signatures, its metadata and its BTF.

    One trusted signature is enough, as one is all that a load passes to the kernel. A single
    trusted one that some kernel takes for a loader with unchecked metadata is too much, wherever it
    stands (`bpfseal.bundle.coverage`). The certificates inside the bundle are trusted by nobody;
    but their keys may be in some kernel's keyring, so their signatures must not be traps either,
    and one that nobody can judge is refused.

    Args:
        signed: the loader with its signatures.
        trusted: the certificates that may have signed it.
        releases: the kernels that matter; without them all that are known, and the digests of the
            newest.
        at: the time to hold the signer certificates' validity period against; see
            `bpfseal.signing.verify.verify_signature`.
        enclosed: certificates, in DER, that came along with it, as those of the bundle's other
            variants do.

    Raises:
        DowngradeTrapError: some kernel loads it with metadata that nobody checks.
        VerificationError: unsigned, no signature by a trusted certificate, a signature that cannot
            be judged for want of its certificate, metadata that the signed instructions do not
            vouch for, an unexpected loader BTF, bytes that are no loader of this scheme, or a
            config that says something else than the loader.
    """
    loader = signed.loader
    if not signed.signatures:
        raise VerificationError("not signed", hint="sign it with: bpfseal sign")
    kernels = tuple(RELEASES.values() if releases is None else releases)
    cryptos = (NEWEST,) if releases is None else _distinct(kernels)
    claimed = without_empty(loader, loader.scheme.signed_parts)
    facts = LoaderFacts.of(loader)
    payloads = LoaderPayloads(loader)
    judge = _Judge(payloads, claimed, trusted)
    enclosing = (*(each.certificate for each in signed.signatures), *enclosed)
    at_hand = (*trusted, *coverage.readable(enclosing))
    unjudged: list[int] = []
    verified: list[VerifiedSignature] = []
    failures: list[VerificationError] = []
    messages: list[bytes] = []
    for number, signature in enumerate(signed.signatures, 1):
        # What a message claims to cover is judged below, whether or not a message does.
        covers = judge.covered(signature.cms, at_hand)
        others = [each for each in covers.found if each.payload != claimed]
        refuse_covered(others, facts, kernels)
        if not covers.is_whole:
            unjudged.append(number)
        try:
            verified.append(judge.verify(signature.cms, cryptos, at))
        except VerificationError as error:
            failures.append(_explained(error, others, loader.scheme_name))
        else:
            messages.append(signature.cms)
    if not verified:
        raise failures[0]
    if unjudged:
        raise VerificationError(
            f"signature {unjudged[0]} is no good one over this loader by any certificate at hand: "
            "what it covers cannot be known",
            hint="it may be a downgrade trap for a kernel that has the key: sign anew without it, "
            "or trust the key",
        )
    plain = tuple(admission(release, claimed, facts) for release in kernels)
    if not loader.scheme.binds_metadata:
        carried = facts.carried if facts.carried_by == loader.scheme_name else None
        if carried is None:
            reason = "the signed instructions carry no digest of the metadata"
            refuse_unchecked(claimed, plain, reason)
        check_digest(loader, carried)
    check_loader_btf(loader)
    refuse_unchecked(claimed, plain)
    per_signature = [
        tuple(admission(each, claimed, facts, judge.answer(cms, each)) for each in kernels)
        for cms in messages
    ]
    check_config(loader)
    best = tuple(map(_best, zip(*per_signature, strict=True)))
    return LoaderVerification(
        signatures=tuple(verified),
        failures=tuple(str(failure) for failure in failures),
        payload=loader.scheme.signed_parts,
        admissions=best,
        warnings=tuple(_warnings(best, plain)),
        not_covered=open_attach_points(loader),
    )


class _Judge:
    """Holds signatures against one loader, for one set of trusted keys."""

    def __init__(
        self, payloads: LoaderPayloads, claimed: Payload, trusted: Sequence[Certificate]
    ) -> None:
        self._payloads = payloads
        self._claimed = payloads[claimed] if claimed else None
        self._trusted = trusted
        self._find = pkcs7.find_in(each.parsed for each in trusted)

    def covered(self, cms: bytes, certificates: Sequence[Certificate]) -> Coverage:
        """Return what a message covers; nothing if no kernel takes it at all."""
        try:
            return coverage.covered(self._payloads, cms, certificates)
        except RefusedError:
            return Coverage()

    def verify(
        self, cms: bytes, cryptos: Sequence[KernelCrypto], at: datetime | None
    ) -> VerifiedSignature:
        """Verify a signature over what the scheme says, as the first kernel that takes it does."""
        if self._claimed is None:
            raise VerificationError("of this scheme a signature covers nothing")
        refused: VerificationError | None = None
        for crypto in cryptos:
            try:
                return verify_signature(cms, self._claimed, self._trusted, crypto, at=at)
            except VerificationError as error:
                refused = refused or error
        raise refused or VerificationError("no kernel to verify for")

    def answer(self, cms: bytes, release: Release) -> SignatureAnswer:
        """Return what the kernels of a release say to a signature."""
        full, least = (self._refusal(cms, release.crypto(full=full)) for full in (True, False))
        if full is None and least is None:
            return SignatureAnswer()
        if full is not None and least is not None:
            return SignatureAnswer("no", full.errno, full.reason)
        some = full or least
        if some is None:
            return SignatureAnswer()
        return SignatureAnswer("some", some.errno, f"some builds: {some.reason}")

    def _refusal(self, cms: bytes, crypto: KernelCrypto) -> RefusedError | None:
        try:
            check_size(cms)
            message = pkcs7_parser.parse(cms, crypto)
            pkcs7.check(message, self._claimed or pkcs7.Payload(), self._find, crypto)
        except RefusedError as refused:
            return refused
        return None


def _distinct(releases: Iterable[Release]) -> tuple[KernelCrypto, ...]:
    """Return what kernels can compute, the newest first."""
    return tuple(dict.fromkeys(release.crypto() for release in reversed(tuple(releases))))


def _explained(
    error: VerificationError, others: Sequence[Covered], scheme_name: str
) -> VerificationError:
    """Say what a signature covers that does not cover what it should."""
    for each in others:
        error.hint = (
            f"it is a signature over {describe(each.payload)}, not what scheme {scheme_name} needs"
        )
    return error


def _best(found: tuple[Admission, ...]) -> Admission:
    return min(found, key=lambda each: _PREFERENCE[each.loads])


def _warnings(found: Sequence[Admission], plain: Sequence[Admission]) -> Iterator[str]:
    """Say what is weak, and which kernels load this but for the signature's algorithms.

    Args:
        found: what each kernel makes of it.
        plain: the same with a signature that each kernel can compute.
    """
    if weak := [each for each in found if each.is_weak]:
        names = ", ".join(each.release.name for each in weak)
        yield f"{weak[0].reason} ({names})"
    lacking: dict[tuple[str, str], list[str]] = {}
    for each, otherwise in zip(found, plain, strict=True):
        if otherwise.loads != "no" and each.errno not in (0, otherwise.errno):
            lacking.setdefault((each.loads, each.text), []).append(each.release.name)
    for (loads, text), kernels in lacking.items():
        verb = "does not load" if loads == "no" else "does not always load"
        yield f"{verb} on {', '.join(kernels)}: {text}"
