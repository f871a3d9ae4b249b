"""The ASN.1 of CMS SignedData (RFC 5652, sections 3 and 5), as far as a kernel reads it.

Only the shape is here; `bpfseal.signing.cms` says what goes in and what is made of it. Values that
nobody needs to look into are kept as `asn1.TLV`, so that they come back as the same bytes.
"""

from __future__ import annotations

from typing import Annotated

from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier

AlgorithmIdentifier = Annotated[list[asn1.TLV], asn1.Size(1, 2)]
"""``SEQUENCE { algorithm OBJECT IDENTIFIER, parameters ANY OPTIONAL }``."""


@asn1.sequence
class IssuerAndSerialNumber:
    """RFC 5652, section 10.2.4."""

    issuer: asn1.TLV
    serial: int


@asn1.sequence
class SignerInfo:
    """RFC 5652, section 5.3."""

    version: int
    sid: IssuerAndSerialNumber | Annotated[bytes, asn1.Implicit(0)]
    digest_algorithm: AlgorithmIdentifier
    signed_attributes: Annotated[asn1.SetOf[asn1.TLV] | None, asn1.Implicit(0)]
    signature_algorithm: AlgorithmIdentifier
    signature: bytes
    unsigned_attributes: Annotated[asn1.SetOf[asn1.TLV] | None, asn1.Implicit(1)]


@asn1.sequence
class EncapsulatedContentInfo:
    """RFC 5652, section 5.2."""

    content_type: ObjectIdentifier
    content: Annotated[bytes | None, asn1.Explicit(0)]


@asn1.sequence
class SignedData:
    """RFC 5652, section 5.1."""

    version: int
    digest_algorithms: asn1.SetOf[AlgorithmIdentifier]
    content_info: EncapsulatedContentInfo
    certificates: Annotated[asn1.SetOf[asn1.TLV] | None, asn1.Implicit(0)]
    revocation_lists: Annotated[asn1.SetOf[asn1.TLV] | None, asn1.Implicit(1)]
    signer_infos: asn1.SetOf[SignerInfo]


@asn1.sequence
class ContentInfo:
    """RFC 5652, section 3."""

    content_type: ObjectIdentifier
    content: Annotated[SignedData, asn1.Explicit(0)]
