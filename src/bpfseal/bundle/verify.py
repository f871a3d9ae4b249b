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

import errno
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from bpfseal.bundle.admission import Admission, LoaderFacts, describe, without_empty
from bpfseal.bundle.derivation import check_config, open_attach_points
from bpfseal.bundle.downgrade import admissions_of, covered_payloads, refuse_unchecked
from bpfseal.bundle.integrity import check_digest, check_loader_btf
from bpfseal.bundle.model import SignedLoader
from bpfseal.bundle.sign import payload_of
from bpfseal.errors import VerificationError
from bpfseal.loader.model import Loader, ProgramEntry
from bpfseal.release import RELEASES, Payload, Release, digests_of
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.pkcs7 import KERNEL_DIGESTS
from bpfseal.signing.verify import VerifiedSignature, verify_signature

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
) -> LoaderVerification:
    """Verify a loader: its signatures, its metadata and its BTF.

    One trusted signature is enough, as one is all that a load passes to the kernel. A single
    trusted one that some kernel takes for a loader with unchecked metadata is too much. The
    certificates inside the bundle are not consulted.

    Args:
        signed: the loader with its signatures.
        trusted: the certificates that may have signed it.
        releases: the kernels that matter; without them all that are known, and the digests of the
            newest.
        at: the time to hold the signer certificates' validity period against; see
            `bpfseal.signing.verify.verify_signature`.

    Raises:
        DowngradeTrapError: some kernel loads it with metadata that nobody checks.
        VerificationError: unsigned, no signature by a trusted certificate, metadata that the signed
            instructions do not vouch for, an unexpected loader BTF, bytes that are no loader of
            this scheme, or a config that says something else than the loader.
    """
    loader = signed.loader
    if not signed.signatures:
        raise VerificationError("not signed", hint="sign it with: bpfseal sign")
    kernels = tuple(RELEASES.values() if releases is None else releases)
    digests = KERNEL_DIGESTS if releases is None else digests_of(kernels)
    claimed = loader.scheme.signed_parts
    verified: list[VerifiedSignature] = []
    failures: list[VerificationError] = []
    for signature in signed.signatures:
        try:
            found = _verify(loader, signature.cms, trusted, digests, at)
        except VerificationError as error:
            failures.append(_explained(error, loader, signature.cms, trusted, kernels))
        else:
            verified.append(found)
    if not verified:
        raise failures[0]
    facts = LoaderFacts.of(loader)
    per_signature = [admissions_of(loader, claimed, found, kernels, facts) for found in verified]
    if not loader.scheme.binds_metadata:
        carried = facts.carried if facts.carried_by == loader.scheme_name else None
        if carried is None:
            reason = "the signed instructions carry no digest of the metadata"
            refuse_unchecked(claimed, per_signature[0], reason)
        check_digest(loader, carried)
    check_loader_btf(loader)
    for each in per_signature:
        refuse_unchecked(claimed, each)
    check_config(loader)
    best = tuple(map(_best, zip(*per_signature, strict=True)))
    return LoaderVerification(
        signatures=tuple(verified),
        failures=tuple(str(failure) for failure in failures),
        payload=claimed,
        admissions=best,
        warnings=tuple(_warnings(best)),
        not_covered=open_attach_points(loader),
    )


def _verify(
    loader: Loader,
    cms: bytes,
    trusted: Sequence[Certificate],
    digests: Collection[str],
    at: datetime | None,
) -> VerifiedSignature:
    """Verify one signature over what the loader's scheme says that it covers."""
    if not loader.scheme.signed_parts:
        raise VerificationError(f"scheme {loader.scheme_name}: a signature covers nothing")
    return verify_signature(cms, payload_of(loader), trusted, digests=digests, at=at)


def _explained(
    error: VerificationError,
    loader: Loader,
    cms: bytes,
    trusted: Sequence[Certificate],
    releases: Sequence[Release],
) -> VerificationError:
    """Say what a signature covers that does not cover what it should.

    Raises:
        DowngradeTrapError: what it covers is loaded somewhere, with metadata that nobody checks.
    """
    claimed = without_empty(loader, loader.scheme.signed_parts)
    for payload, verified in covered_payloads(loader, cms, trusted).items():
        if payload == claimed:
            continue
        found = admissions_of(loader, payload, verified, releases)
        signer = verified.certificate.subject
        refuse_unchecked(payload, found, f"{signer} signed {describe(payload)}")
        error.hint = (
            f"it is a signature over {describe(payload)}, "
            f"not what scheme {loader.scheme_name} needs"
        )
    return error


def _best(found: tuple[Admission, ...]) -> Admission:
    return min(found, key=lambda each: _PREFERENCE[each.loads])


def _warnings(found: Sequence[Admission]) -> Iterator[str]:
    if weak := [each for each in found if each.is_weak]:
        names = ", ".join(each.release.name for each in weak)
        yield f"{weak[0].reason} ({names})"
    if lacking := [each for each in found if each.errno == errno.ENOPKG]:
        names = ", ".join(each.release.name for each in lacking)
        yield f"no kernel, or not every one, of {names} loads it: {lacking[0].text}"
