"""What the signatures in a message really cover, whoever reads it.

A kernel takes a message because of one SignerInfo in it; which one depends on the kernel's digests,
on the keys in its keyring and on the order. `covered` asks something simpler that holds for all of
them at once: over which parts of a loader does *any* SignerInfo hold a good signature by *any* key
whose certificate is at hand, whoever trusts it? What a kernel loads is always among the answers:

- a kernel takes a message for some bytes only if one SignerInfo is a good signature over them, by
  a key of the keyring or by that of an embedded certificate which such a key vouches for
  (``pkcs7_validate_trust_one``);
- a SignerInfo that is no good signature by any of them leaves the answer incomplete
  (`Coverage.is_whole`): its key may be in some keyring all the same, so who asks has to refuse it;
- so neither the order of the SignerInfos, nor those that a kernel passes over, nor a keyring with
  some of the keys only, can add anything.

It may say more than any one kernel does, for a bad signature further on can stop a kernel. That is
as it should be: no signer writes such a message.

Example::

    payloads = LoaderPayloads(loader)
    [each.payload for each in covered(payloads, cms, trusted).found]  # [("insns",)]
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from bpfseal.bundle.admission import without_empty
from bpfseal.errors import InputError, VerificationError
from bpfseal.loader.model import Loader
from bpfseal.release import PERMISSIVE, Payload
from bpfseal.scheme import SCHEMES
from bpfseal.signing import pkcs7, pkcs7_parser, public_key
from bpfseal.signing.ber import RefusedError
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.pkcs7_parser import ParsedMessage, SignerInfo
from bpfseal.signing.verify import check_size
from bpfseal.signing.x509 import ParsedCertificate

PAYLOADS: tuple[Payload, ...] = tuple(
    dict.fromkeys(scheme.signed_parts for scheme in SCHEMES.values() if scheme.signed_parts)
)
"""What a signature over a loader can cover, on any kernel."""

_UNVERIFIABLE = frozenset({"ecrdsa"})
"""Algorithms that some kernels verify with, and that cannot be verified here."""


class LoaderPayloads(Mapping[Payload, pkcs7.Payload]):
    """The bytes that kernels may hash for a loader, by parts; each is hashed once for a digest."""

    def __init__(self, loader: Loader) -> None:
        parts = {"insns": loader.insns, "btf": loader.btf, "metadata": loader.metadata}
        names = dict.fromkeys(without_empty(loader, payload) for payload in PAYLOADS)
        self._payloads = {
            payload: pkcs7.Payload(*(parts[part] for part in payload)) for payload in names
        }

    def __getitem__(self, payload: Payload) -> pkcs7.Payload:
        return self._payloads[payload]

    def __iter__(self) -> Iterator[Payload]:
        return iter(self._payloads)

    def __len__(self) -> int:
        return len(self._payloads)


@dataclass(frozen=True, slots=True)
class Covered:
    """One SignerInfo that is a good signature over some parts of a loader.

    Attributes:
        position: which SignerInfo it is, from 0.
        payload: the parts that it covers.
        signer: the certificate of the key that signed.
        algorithm: ``"rsa"``, ``"ecdsa"``, ``"mldsa65"``, ...
    """

    position: int
    payload: Payload
    signer: Certificate
    algorithm: str


@dataclass(frozen=True, slots=True)
class Coverage:
    """What a message covers.

    Attributes:
        found: the good signatures in it.
        is_whole: each of its SignerInfos is among them. What another one covers cannot be known; a
            certificate of its signer's name does not help, it may be anybody's.
    """

    found: tuple[Covered, ...] = ()
    is_whole: bool = True


def readable(enclosed: Iterable[bytes]) -> tuple[Certificate, ...]:
    """Return the certificates that come with signatures, each once; what is none is left out.

    Args:
        enclosed: certificates in DER.
    """
    found = []
    for der in dict.fromkeys(enclosed):
        try:
            found.append(Certificate.from_der(der))
        except InputError:
            continue
    return tuple(found)


def covered(payloads: LoaderPayloads, cms: bytes, certificates: Sequence[Certificate]) -> Coverage:
    """Find out what each SignerInfo of a message covers.

    Args:
        payloads: what the loader's kernels may hash.
        cms: the message.
        certificates: those at hand, beside those in the message: a key may be in some kernel's
            keyring, such as ``.secondary``, whoever trusts it here.

    Raises:
        RefusedError: no kernel takes the message, whatever it should cover.
        VerificationError: a signature of a kind that cannot be verified here.
        CapabilityError: one with ML-DSA, which this installation does not have.
    """
    message = parse(cms)
    found = tuple(_covered(payloads, message, _Names(certificates)))
    judged = {each.position for each in found}
    return Coverage(found, judged == set(range(len(message.signer_infos))))


def parse(cms: bytes) -> ParsedMessage:
    """Read a message that some kernel takes.

    Raises:
        RefusedError: none does.
    """
    check_size(cms)
    message = pkcs7_parser.parse(cms, PERMISSIVE)
    pkcs7.check_content(message)
    return message


class _Names:
    """Certificates by the names that their keys have."""

    def __init__(self, certificates: Iterable[Certificate]) -> None:
        self._found: dict[bytes, list[Certificate]] = {}
        for certificate in certificates:
            for name in {certificate.parsed.names_key, certificate.parsed.key_id} - {None}:
                self._found.setdefault(name or b"", []).append(certificate)

    def of(self, name: bytes | None) -> Sequence[Certificate]:
        """Return all certificates of a name."""
        return self._found.get(name, ()) if name else ()


def _covered(payloads: LoaderPayloads, message: ParsedMessage, known: _Names) -> Iterator[Covered]:
    for position, info in enumerate(message.signer_infos):
        for signer in _signers(info, message, known):
            if signer.parsed.key.algorithm in _UNVERIFIABLE:
                raise VerificationError(
                    f"a signature by {signer.subject} cannot be judged: {info.algorithm} is not "
                    "verified here, and some kernels do"
                )
            for payload in _signed_by(signer.parsed, info, payloads):
                yield Covered(position, payload, signer, info.algorithm)


def _signed_by(
    signer: ParsedCertificate, info: SignerInfo, payloads: LoaderPayloads
) -> Iterator[Payload]:
    is_hashed = not info.takes_data or info.attributes is not None
    if is_hashed and info.digest not in public_key.HASHES:
        return  # no kernel verifies with such a digest: software_key_determine_akcipher
    for payload, hashed in payloads.items():
        try:
            value = pkcs7.signature_value(info, hashed)
            public_key.verify(signer.key, value, PERMISSIVE.algorithms)
        except RefusedError:
            continue
        yield payload


def _signers(info: SignerInfo, message: ParsedMessage, known: _Names) -> Iterator[Certificate]:
    """Return the keys that may have signed: those at hand, and those that the message brings."""
    yield from known.of(info.name)
    for embedded in message.certificates:
        if embedded.names_key == info.name:
            yield Certificate(embedded.der, embedded)
