"""The downgrade trap: a good signature that some kernel takes for a loader nobody checks.

Kernels differ in what they hold a signature against. A loader of the scheme ``loadtime`` checks
nothing itself; signed over its instructions alone it verifies as a CMS message, and kernels before
7.3 load it with any metadata at all. `bpfseal.bundle.coverage` finds out what a signature really
covers; this module refuses those that lead to such a load. Whoever makes or changes bundles asks
it, and so does `bpfseal.bundle.verify`.

Example:
    >>> from bpfseal.bundle.model import SignedLoader
    >>> from bpfseal.loader.model import Loader
    >>> refuse_unchecked_signing(Loader("inline", "x", bytes(8), b"data", b"", (), ()))
    Traceback (most recent call last):
    bpfseal.bundle.downgrade.DowngradeTrapError: downgrade trap: the signature covers ...
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bpfseal.bundle import coverage
from bpfseal.bundle.admission import Admission, LoaderFacts, admission, admissions, describe
from bpfseal.bundle.coverage import Covered, LoaderPayloads
from bpfseal.bundle.model import SignedLoader
from bpfseal.errors import VerificationError
from bpfseal.loader.model import Loader
from bpfseal.release import RELEASES, Payload, Release
from bpfseal.signing.ber import RefusedError
from bpfseal.signing.certificate import Certificate


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


def refuse_covered(
    found: Iterable[Covered], facts: LoaderFacts, releases: Sequence[Release], claimed: Payload = ()
) -> None:
    """Refuse what signatures cover if some kernel loads the loader unchecked because of one.

    Digests do not matter: one that is a module in one build is built in elsewhere. A name that a
    release's parser does not know does.

    Args:
        found: what the signatures cover.
        facts: what the loader does.
        releases: the kernels that matter.
        claimed: the parts that a signature is said to cover; one that covers others is named.

    Raises:
        DowngradeTrapError: a kernel does.
    """
    for each in dict.fromkeys(found):
        knowing = [one for one in releases if each.algorithm in one.named_algorithms]
        made = tuple(admission(release, each.payload, facts) for release in knowing)
        signed = f"{each.signer.subject} signed {describe(each.payload)}"
        refuse_unchecked(each.payload, made, "" if each.payload == claimed else signed)


def refuse_traps(signed: SignedLoader, certificates: Iterable[Certificate] = ()) -> None:
    """Refuse to write a loader with a signature that is a trap, or may be one for all we know.

    Each SignerInfo of each signature must be a good one, by a certificate at hand, over parts that
    somebody checks on every kernel. What cannot be judged is refused, for it may be a trap for
    whoever has its key: a signature whose certificate was left out, one that no kernel can read.
    This is for whoever writes bundles; it says nothing about trust.

    Args:
        signed: the loader.
        certificates: certificates beside those that come with the signatures.

    Raises:
        DowngradeTrapError: there is a trap.
        VerificationError: a signature cannot be judged.
        CapabilityError: one is with ML-DSA, which this installation does not have.
    """
    if not signed.signatures:
        return
    known = (*certificates, *coverage.readable(each.certificate for each in signed.signatures))
    payloads, facts = LoaderPayloads(signed.loader), LoaderFacts.of(signed.loader)
    for number, signature in enumerate(signed.signatures, 1):
        try:
            covers = coverage.covered(payloads, signature.cms, known)
        except RefusedError as refused:
            raise _unjudged(number, f"no kernel takes it, {refused.message}") from refused
        refuse_covered(covers.found, facts, tuple(RELEASES.values()))
        if not covers.is_whole:
            reason = "it is over other bytes, or the certificate of its key is not in the bundle"
            raise _unjudged(number, reason)


def _unjudged(number: int, reason: str) -> VerificationError:
    return VerificationError(
        f"signature {number} that is there already cannot be judged: {reason}",
        hint="import it with the certificate of its key, or sign a bundle without it",
    )


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
