"""Detached CMS signatures: build them as the kernel takes them, and read what others made.

`build` writes one profile of SignedData (RFC 5652, section 5): version 3, content type id-data
without content, no certificates, one SignerInfo named by the certificate's subjectKeyIdentifier,
no signed attributes. With an RSA key these are the bytes that ``openssl cms -sign -binary -noattr
-nocerts -keyid -outform DER`` writes. `parse` reads much more than that and only reports: what a
kernel makes of a message is said in `bpfseal.signing.pkcs7`.

Example::

    message = parse(build(payload, load_signer(key_pem, certificate_pem)))
    message.signer_infos[0].digest  # "sha256"
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier

from bpfseal.errors import InputError, UnsupportedError
from bpfseal.release import MAX_SIGNATURE_SIZE
from bpfseal.signing import mldsa, oids, syntax
from bpfseal.signing.certificate import Certificate, KeyId
from bpfseal.signing.signer import Signer, require_hash

MAX_MESSAGE_SIZE = 1 << 20
"""Bytes of the largest message that `parse` looks at."""

_NULL = b"\x05\x00"
_MALFORMED = "not a DER-encoded CMS SignedData message"


@dataclass(frozen=True, slots=True)
class SignerInfo:
    """One signature of a message (RFC 5652, section 5.3).

    It names its signer either by `key_id` or by `issuer` and `serial`.

    Attributes:
        key_id: the signer's subjectKeyIdentifier, or None.
        issuer: DER of the Name of the signer certificate's issuer, or None.
        serial: the signer certificate's serial number, or None.
        digest: the digest's name (a key of `bpfseal.signing.oids.DIGESTS`) or its dotted OID.
        algorithm: ``"rsa"``, ``"ecdsa"``, ``"rsa-pss"``, ``"mldsa44"``, ... or a dotted OID.
        signed_attributes: the encoded signed attributes one after the other, or None without any.
        signature: the signature value.
        version: 1 (named by issuer and serial) or 3 (named by key id), if the writer is correct.
        algorithm_oid: the dotted OID behind `algorithm`.
    """

    key_id: bytes | None
    issuer: bytes | None
    serial: int | None
    digest: str
    algorithm: str
    signed_attributes: bytes | None
    signature: bytes
    version: int
    algorithm_oid: str

    @property
    def signer(self) -> KeyId:
        """How the signature names its key.

        The version says which of the two names counts (``pkcs7_note_signed_info``); a message
        that has the other one names no key.
        """
        if self.version == 1:
            return KeyId(issuer=self.issuer, serial=self.serial)
        return KeyId(key_id=self.key_id)


@dataclass(frozen=True, slots=True)
class CmsMessage:
    """A CMS SignedData message, as it was found.

    Attributes:
        signer_infos: the signatures.
        certificates: the embedded certificates, each as DER, not looked into.
        content: the embedded content; None in a detached signature.
        trailing: bytes after the message.
        version: the version of the SignedData; kernels know 1 and 3.
        digests: the list of digests that the message announces; kernels do not look at it.
        content_type: dotted OID of the content's type; id-data in a loader's signature.
    """

    signer_infos: tuple[SignerInfo, ...]
    certificates: tuple[bytes, ...]
    content: bytes | None
    trailing: int
    version: int
    digests: tuple[str, ...]
    content_type: str


def build(payload: bytes, signer: Signer, hash_name: str = "sha256") -> bytes:
    """Sign `payload` and return the detached CMS message as DER.

    Args:
        payload: what is signed (`bpfseal.signing.payload.signed_payload`).
        signer: who signs.
        hash_name: ``"sha256"``, ``"sha384"`` or ``"sha512"``; ML-DSA has no use for it.

    Raises:
        UsageError: another hash.
        InputError: the certificate has no subjectKeyIdentifier.
    """
    require_hash(hash_name)
    signature = signer.sign(payload, hash_name)
    return assemble(signature, signer.certificate, signer.algorithm, hash_name)


def assemble(signature: bytes, certificate: Certificate, algorithm: str, hash_name: str) -> bytes:
    """Return the CMS message that carries a signature value made elsewhere.

    Args:
        signature: the value: PKCS#1 v1.5 for RSA, DER of ECDSA-Sig-Value for ECDSA.
        certificate: the signer's certificate; only its subjectKeyIdentifier goes in.
        algorithm: ``"rsa"``, ``"ecdsa"`` or one of `bpfseal.signing.mldsa.KINDS`.
        hash_name: ``"sha256"``, ``"sha384"`` or ``"sha512"``; ML-DSA has no use for it.

    Raises:
        UsageError: another hash.
        InputError: the certificate has no subjectKeyIdentifier.
        UnsupportedError: the message is larger than kernels take.
    """
    require_hash(hash_name)
    # Parameters are absent for SHA-2 (RFC 5754, section 2), for ECDSA (RFC 5758, section 3.2) and
    # for ML-DSA (RFC 9882, section 2), and NULL for rsaEncryption (RFC 3370, section 3.2).
    digest_algorithm = [_oid(oids.DIGESTS[named_digest(algorithm, hash_name)])]
    if algorithm == "rsa":
        signature_algorithm = [_oid(oids.RSA_ENCRYPTION), _tlv(asn1.Null())]
    elif algorithm in mldsa.KINDS:
        signature_algorithm = [_oid(oids.MLDSA[algorithm])]
    else:
        signature_algorithm = [_oid(oids.ECDSA_WITH[hash_name])]
    signer_info = syntax.SignerInfo(
        version=3,
        sid=certificate.require_subject_key_id(),
        digest_algorithm=digest_algorithm,
        signed_attributes=None,
        signature_algorithm=signature_algorithm,
        signature=signature,
        unsigned_attributes=None,
    )
    signed_data = syntax.SignedData(
        version=3,
        digest_algorithms=asn1.SetOf([digest_algorithm]),
        content_info=syntax.EncapsulatedContentInfo(
            content_type=ObjectIdentifier(oids.DATA), content=None
        ),
        certificates=None,
        revocation_lists=None,
        signer_infos=asn1.SetOf([signer_info]),
    )
    message = asn1.encode_der(
        syntax.ContentInfo(content_type=ObjectIdentifier(oids.SIGNED_DATA), content=signed_data)
    )
    if len(message) > MAX_SIGNATURE_SIZE:
        raise UnsupportedError(
            f"signature of {len(message)} bytes, more than the {MAX_SIGNATURE_SIZE} of kernels"
        )
    return message


def named_digest(algorithm: str, hash_name: str) -> str:
    """Return the digest that a message of this algorithm names.

    ML-DSA signs the content itself; its messages name SHA-512 all the same.
    """
    return mldsa.DIGEST if algorithm in mldsa.KINDS else hash_name


def parse(der: bytes) -> CmsMessage:
    """Read a CMS SignedData message.

    Only DER is read. The kernel's decoder (``lib/asn1_decoder.c``) also takes BER, which no signer
    of loaders writes.

    Raises:
        InputError: not such a message, or larger than `MAX_MESSAGE_SIZE`.
    """
    if len(der) > MAX_MESSAGE_SIZE:
        raise InputError(f"CMS message of {len(der)} bytes, more than {MAX_MESSAGE_SIZE}")
    end = _end_of_sequence(der)
    try:
        content_info = asn1.decode_der(syntax.ContentInfo, der[:end])
        if content_info.content_type.dotted_string != oids.SIGNED_DATA:
            raise InputError("CMS message that is not SignedData")
        signed_data = content_info.content
        return CmsMessage(
            signer_infos=tuple(_signer_info(info) for info in signed_data.signer_infos.as_list()),
            certificates=tuple(_encoded(signed_data.certificates)),
            content=signed_data.content_info.content,
            trailing=len(der) - end,
            version=signed_data.version,
            digests=tuple(_digest_name(each) for each in signed_data.digest_algorithms.as_list()),
            content_type=signed_data.content_info.content_type.dotted_string,
        )
    except ValueError as error:
        raise InputError(_MALFORMED) from error


def _end_of_sequence(der: bytes) -> int:
    """Return the offset after the SEQUENCE that `der` begins with, which may be past its end."""
    if len(der) < 2 or der[0] != 0x30:
        raise InputError(_MALFORMED)
    if der[1] < 0x80:
        return 2 + der[1]
    if der[1] == 0x80:
        raise InputError("CMS message of indefinite length: BER, not DER")
    length_end = 2 + (der[1] & 0x7F)
    end = length_end + int.from_bytes(der[2:length_end], "big")
    if end > len(der):
        raise InputError("truncated CMS message")
    return end


def _signer_info(info: syntax.SignerInfo) -> SignerInfo:
    algorithm_oid = _algorithm_oid(info.signature_algorithm)
    algorithm = oids.algorithm_name(algorithm_oid)
    if algorithm in ("rsa", "ecdsa", *mldsa.KINDS):
        _require_no_parameters(info.signature_algorithm)
    by_name = None if isinstance(info.sid, bytes) else info.sid
    attributes = info.signed_attributes
    return SignerInfo(
        key_id=info.sid if isinstance(info.sid, bytes) else None,
        issuer=asn1.encode_der(by_name.issuer) if by_name else None,
        serial=by_name.serial if by_name else None,
        digest=_digest_name(info.digest_algorithm),
        algorithm=algorithm,
        signed_attributes=None if attributes is None else b"".join(_encoded(attributes)),
        signature=info.signature,
        version=info.version,
        algorithm_oid=algorithm_oid,
    )


def _encoded(values: asn1.SetOf[asn1.TLV] | None) -> list[bytes]:
    return [asn1.encode_der(value) for value in values.as_list()] if values else []


def _algorithm_oid(algorithm: syntax.AlgorithmIdentifier) -> str:
    oid: ObjectIdentifier = algorithm[0].parse(ObjectIdentifier)
    return oid.dotted_string


def _digest_name(algorithm: syntax.AlgorithmIdentifier) -> str:
    _require_no_parameters(algorithm)
    return oids.digest_name(_algorithm_oid(algorithm))


def _require_no_parameters(algorithm: syntax.AlgorithmIdentifier) -> None:
    """Refuse parameters other than NULL (RFC 5754, section 2), which kernels would skip."""
    for parameters in algorithm[1:]:
        if asn1.encode_der(parameters) != _NULL:
            raise InputError("CMS message with an algorithm that has unknown parameters")


def _oid(dotted: str) -> asn1.TLV:
    return _tlv(ObjectIdentifier(dotted))


def _tlv(value: object) -> asn1.TLV:
    return asn1.decode_der(asn1.TLV, asn1.encode_der(value))
