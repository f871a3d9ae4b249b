"""The downgrade trap: a good signature that some kernel takes for a loader nobody checks.

Kernels differ in what they hold a signature against. A loader of the scheme ``loadtime`` checks
nothing itself; signed over its instructions alone it verifies as a CMS message, and kernels before
7.3 load it with any metadata at all. This module finds out what a signature really covers, and
refuses those that lead to such a load. Whoever makes or changes bundles asks it, and so does
`bpfseal.bundle.verify`.

Example:
    >>> from bpfseal.bundle.model import SignedLoader
    >>> from bpfseal.loader.model import Loader
    >>> refuse_unchecked_signing(Loader("inline", "x", bytes(8), b"data", b"", (), ()))
    Traceback (most recent call last):
    bpfseal.bundle.downgrade.DowngradeTrapError: downgrade trap: the signature covers ...
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bpfseal.bundle.admission import Admission, LoaderFacts, admissions, without_empty
from bpfseal.bundle.model import SignedLoader
from bpfseal.errors import InputError, VerificationError
from bpfseal.loader.model import Loader
from bpfseal.release import RELEASES, Payload, Release, digests_of
from bpfseal.scheme import SCHEMES
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.payload import joined
from bpfseal.signing.pkcs7 import Pkcs7Error
from bpfseal.signing.verify import VerifiedSignature, named_signers, verify_signature

PAYLOADS: tuple[Payload, ...] = tuple(
    dict.fromkeys(scheme.signed_parts for scheme in SCHEMES.values() if scheme.signed_parts)
)
"""What a signature over a loader can cover, on any kernel."""


class DowngradeTrapError(VerificationError):
    """A trusted key's signature lets a kernel load the loader with metadata that nobody checks.

    Attributes:
        payload: the parts that the signature covers.
        admissions: what each kernel release makes of it.
    """

    def __init__(self, payload: Payload, admissions: tuple[Admission, ...], reason: str) -> None:
        names = ", ".join(found.release.name for found in admissions if found.is_unchecked)
        super().__init__(
            f"downgrade trap: {reason}: nobody checks the metadata on {names}",
            hint="do not load it, and sign it anew",
        )
        self.payload = payload
        self.admissions = admissions


def admissions_of(
    loader: Loader,
    payload: Payload,
    verified: VerifiedSignature,
    releases: Iterable[Release] = RELEASES.values(),
    facts: LoaderFacts | None = None,
) -> tuple[Admission, ...]:
    """Return what each release makes of a loader with this signature over these parts."""
    return admissions(
        loader,
        payload,
        facts=facts,
        digest=verified.digest,
        algorithm=verified.algorithm,
        releases=releases,
    )


def covered_payloads(
    loader: Loader, cms: bytes, trusted: Sequence[Certificate]
) -> dict[Payload, VerifiedSignature]:
    """Find out over which parts of a loader a message is a good signature, whatever its scheme.

    Each trusted certificate counts on its own too: of a message with several signatures a kernel
    that knows one of the keys sees that one only.

    Args:
        loader: the loader.
        cms: DER of the CMS message.
        trusted: the certificates that may have signed it.
    """
    try:
        alone = [[signer] for signer in named_signers(cms, trusted)]
    except InputError:
        return {}
    keyrings = [trusted, *alone] if len(trusted) > 1 else [trusted]
    every_digest = digests_of(RELEASES.values())
    found: dict[Payload, VerifiedSignature] = {}
    for parts in dict.fromkeys(without_empty(loader, parts) for parts in PAYLOADS):
        payload = joined(parts, insns=loader.insns, metadata=loader.metadata, btf=loader.btf)
        for keyring in keyrings:
            try:
                verified = verify_signature(
                    cms, payload, keyring, digests=every_digest, as_kernel=True
                )
            except Pkcs7Error:
                continue
            found.setdefault(parts, verified)
    return found


def refuse_traps(signed: SignedLoader) -> None:
    """Refuse a loader with a signature that some kernel takes with metadata that nobody checks.

    Each signature is held against the certificate that comes with it. This is for whoever writes
    bundles; it says nothing about trust.

    Raises:
        DowngradeTrapError: there is one.
    """
    for signature in signed.signatures:
        try:
            certificates = [Certificate.from_der(signature.certificate)]
        except InputError:
            continue
        for payload, verified in covered_payloads(
            signed.loader, signature.cms, certificates
        ).items():
            refuse_unchecked(payload, admissions_of(signed.loader, payload, verified))


def refuse_unchecked_signing(loader: Loader) -> None:
    """Refuse a loader that some kernel would load with unchecked metadata, were it signed.

    Raises:
        DowngradeTrapError: it must not be signed.
    """
    payload = loader.scheme.signed_parts
    refuse_unchecked(payload, admissions(loader, payload))


def refuse_unchecked(payload: Payload, found: tuple[Admission, ...], reason: str = "") -> None:
    """Refuse what kernels make of a loader if one of them loads it unchecked.

    Args:
        payload: the parts that the signature covers.
        found: what kernels make of it.
        reason: what is wrong with the loader, for the message.

    Raises:
        DowngradeTrapError: a kernel does.
    """
    for each in found:
        if each.is_unchecked:
            raise DowngradeTrapError(payload, found, reason or each.reason)
