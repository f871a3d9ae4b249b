"""The grammars that kernels read signatures and keys with, for `bpfseal.signing.ber`.

Each is the kernel's own, from ``crypto/asymmetric_keys/`` (pkcs7.asn1, x509.asn1, x509_akid.asn1)
and ``crypto/`` (rsapubkey.asn1, ecdsasignature.asn1). They are wider than the standards: a SET OF
may be a SEQUENCE OF, attributes may come in two forms, a parameter is anything.

Example:
    >>> RSA_PUBLIC_KEY.fields[0].action
    'modulus'
"""

from __future__ import annotations

from bpfseal.signing.ber import (
    Anything,
    Choice,
    Container,
    Element,
    Implicit,
    Noted,
    Optional,
    Primitive,
)

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, OID = 0x01, 0x02, 0x03, 0x04, 0x06
IA5_STRING, UTC_TIME, GENERALIZED_TIME = 0x16, 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31


def _sequence(*fields: Element, shared: bool = False, action: str = "") -> Container:
    return Container(SEQUENCE, fields, shared=shared, action=action)


def _sequence_of(field: Element, *, shared: bool = False) -> Container:
    return Container(SEQUENCE, (field,), repeats=True, shared=shared)


def _set_of(field: Element, *, shared: bool = False) -> Container:
    return Container(SET, (field,), repeats=True, shared=shared)


def _explicit(number: int, element: Element) -> Container:
    return Container(0xA0 | number, (element,))


def _constructed(number: int, container: Container | Noted) -> Implicit:
    return Implicit(0xA0 | number, container)


def _primitive(number: int, element: Primitive) -> Implicit:
    return Implicit(0x80 | number, element)


def _name(*, shared: bool = False) -> Container:
    attribute = _sequence(Primitive(OID, "note_oid"), Anything())
    return _sequence_of(_set_of(attribute), shared=shared)


# The kernel takes no note of parameters here.
_PARAMETERS = Optional(Anything("parameters"))
_ALGORITHM = _sequence(Primitive(OID, "note_oid"), _PARAMETERS, shared=True)
_SIGNATURE_ALGORITHM = _sequence(Primitive(OID, "note_oid"), _PARAMETERS)
_CERTIFICATE = Anything("certificate")
_CERTIFICATE_LIST = _sequence_of(_CERTIFICATE, shared=True)
_SIGNED_ATTRIBUTE = _sequence(
    Primitive(OID, "note_oid"), _set_of(Anything("signed_attribute")), shared=True
)
_UNSIGNED_ATTRIBUTE = _sequence(Primitive(OID), _set_of(Anything()), shared=True)

_SIGNER_INFO = _sequence(
    Primitive(INTEGER, "signer_version"),
    Choice(
        (
            _sequence(Noted(_name(), "issuer"), Primitive(INTEGER, "serial")),
            _primitive(0, Primitive(OCTET_STRING, "key_id")),
        )
    ),
    Noted(_ALGORITHM, "digest_algorithm"),
    Optional(
        Choice(
            (
                _constructed(0, Noted(_set_of(_SIGNED_ATTRIBUTE), "signed_attributes")),
                _explicit(2, _sequence_of(_SIGNED_ATTRIBUTE)),
            ),
            is_wider=True,
        )
    ),
    Noted(_SIGNATURE_ALGORITHM, "signature_algorithm"),
    Primitive(OCTET_STRING, "signature"),
    Optional(
        Choice(
            (
                _constructed(1, _set_of(_UNSIGNED_ATTRIBUTE)),
                _constructed(3, _sequence_of(_UNSIGNED_ATTRIBUTE)),
            ),
            is_wider=True,
        )
    ),
    shared=True,
    action="signer_info",
)

_SIGNED_DATA = _sequence(
    Primitive(INTEGER, "version"),
    Choice((_set_of(_ALGORITHM), _sequence_of(_ALGORITHM)), is_wider=True),
    Noted(
        _sequence(
            Primitive(OID, "note_oid"),
            Optional(_explicit(0, Anything("content"))),
        ),
        "content_type",
    ),
    Noted(
        Optional(
            Choice(
                (
                    # A CHOICE of ANY and PKCS #6's certificates: ANY always wins, or is missing.
                    _constructed(0, _set_of(Choice((_CERTIFICATE,)))),
                    _constructed(2, _sequence_of(_CERTIFICATE)),
                ),
                is_wider=True,
            )
        ),
        "certificate_list",
    ),
    Optional(
        Choice(
            (
                _constructed(1, _set_of(_CERTIFICATE_LIST)),
                _constructed(3, _sequence_of(_CERTIFICATE_LIST)),
            ),
            is_wider=True,
        )
    ),
    Choice((_set_of(_SIGNER_INFO), _sequence_of(_SIGNER_INFO)), is_wider=True),
)

PKCS7 = _sequence(
    Noted(Primitive(OID, "note_oid"), "message_type"),
    Optional(_explicit(0, _SIGNED_DATA)),
)
"""pkcs7.asn1, PKCS7ContentInfo."""

_X509_ALGORITHM = _sequence(
    Primitive(OID, "note_oid"), Optional(Anything("parameters")), shared=True
)
_X509_NAME = _name(shared=True)
_TIME = Choice((Primitive(UTC_TIME), Primitive(GENERALIZED_TIME)))

_EXTENSION = _sequence(
    Primitive(OID, "note_oid"),
    Optional(Primitive(BOOLEAN)),
    Primitive(OCTET_STRING, "extension"),
)

X509 = _sequence(
    Noted(
        _sequence(
            Optional(_explicit(0, Primitive(INTEGER))),
            Noted(Primitive(INTEGER), "serial"),
            Noted(_X509_ALGORITHM, "signature_algorithm"),
            Noted(_X509_NAME, "issuer"),
            _sequence(Noted(_TIME, "not_before"), Noted(_TIME, "not_after")),
            Noted(_X509_NAME, "subject"),
            _sequence(_X509_ALGORITHM, Primitive(BIT_STRING, "public_key")),
            Optional(_primitive(1, Primitive(BIT_STRING))),
            Optional(_primitive(2, Primitive(BIT_STRING))),
            Optional(_explicit(3, _sequence_of(_EXTENSION))),
        ),
        "to_be_signed",
    ),
    _X509_ALGORITHM,
    Primitive(BIT_STRING, "signature"),
)
"""x509.asn1, Certificate."""

_OTHER_NAME = _sequence(Primitive(OID), _explicit(0, Anything()))
_EDI_PARTY_NAME = _sequence(Optional(_explicit(0, Anything())), _explicit(1, Anything()))

AUTHORITY_KEY_ID = _sequence(
    Optional(_primitive(0, Primitive(OCTET_STRING, "authority_key_id"))),
    Optional(
        _constructed(
            1,
            _sequence_of(
                Choice(
                    (
                        _constructed(0, _OTHER_NAME),
                        _primitive(1, Primitive(IA5_STRING)),
                        _primitive(2, Primitive(IA5_STRING)),
                        _explicit(3, Anything()),
                        _explicit(4, Noted(_name(), "authority_name")),
                        _constructed(5, _EDI_PARTY_NAME),
                        _primitive(6, Primitive(IA5_STRING)),
                        _primitive(7, Primitive(OCTET_STRING)),
                        _primitive(8, Primitive(OID)),
                    )
                )
            ),
        )
    ),
    Optional(_primitive(2, Primitive(INTEGER, "authority_serial"))),
)
"""x509_akid.asn1, AuthorityKeyIdentifier."""

RSA_PUBLIC_KEY = _sequence(Primitive(INTEGER, "modulus"), Primitive(INTEGER, "exponent"))
"""rsapubkey.asn1, RsaPubKey."""

ECDSA_SIGNATURE = _sequence(Primitive(INTEGER, "r"), Primitive(INTEGER, "s"))
"""ecdsasignature.asn1, ECDSASignature."""
