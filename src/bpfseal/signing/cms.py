"""Build detached CMS signatures as kernels take them.

`build` writes one profile of SignedData (RFC 5652, section 5): version 3, content type id-data
without content, no certificates, one SignerInfo named by the certificate's subjectKeyIdentifier,
no signed attributes. With an RSA key these are the bytes that ``openssl cms -sign -binary -noattr
-nocerts -keyid -outform DER`` writes. Messages are read as kernels read them, which is much more:
`bpfseal.signing.pkcs7_parser`.

Example::

    message = parse(build(payload, load_signer(key_pem, certificate_pem)), ANY_KERNEL)
    message.signer_infos[0].digest  # "sha256"
"""

from __future__ import annotations

from typing import Final

from bpfseal.errors import UnsupportedError
from bpfseal.release import MAX_SIGNATURE_SIZE
from bpfseal.signing import der, mldsa, oids
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.signer import Signer, require_hash

_VERSION: Final = 3
_KEY_ID: Final = 0x80
"""The tag of the key id in a SignerIdentifier: ``[0] IMPLICIT OCTET STRING``."""


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
    digest_algorithm = der.sequence(der.oid(oids.DIGESTS[named_digest(algorithm, hash_name)]))
    if algorithm == "rsa":
        signature_algorithm = der.sequence(der.oid(oids.RSA_ENCRYPTION), der.NULL)
    elif algorithm in mldsa.KINDS:
        signature_algorithm = der.sequence(der.oid(oids.MLDSA[algorithm]))
    else:
        signature_algorithm = der.sequence(der.oid(oids.ECDSA_WITH[hash_name]))
    signer_info = der.sequence(
        der.integer(_VERSION),
        der.element(_KEY_ID, certificate.require_subject_key_id()),
        digest_algorithm,
        signature_algorithm,
        der.octets(signature),
    )
    signed_data = der.sequence(
        der.integer(_VERSION),
        der.set_of(digest_algorithm),
        der.sequence(der.oid(oids.DATA)),
        der.set_of(signer_info),
    )
    message = der.sequence(der.oid(oids.SIGNED_DATA), der.explicit(0, signed_data))
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
