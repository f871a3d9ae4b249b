from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfseal.errors import InputError, UsageError
from bpfseal.signing import cms, oids
from bpfseal.signing.signer import SIGNING_HASHES

from .support import PAYLOAD, certificate, flips, openssl, openssl_sign, pair, seeded, signer

PROFILE = ("-noattr", "-nocerts", "-keyid")


@pytest.mark.parametrize("hash_name", SIGNING_HASHES)
@pytest.mark.parametrize("key_type", ["rsa2048", "rsa3072", "rsa4096"])
def test_an_rsa_message_is_what_openssl_writes_byte_for_byte(key_type: str, hash_name: str) -> None:
    expected = openssl_sign(pair(key_type), PAYLOAD, *PROFILE, "-md", hash_name)
    assert cms.build(PAYLOAD, signer(key_type), hash_name) == expected


@pytest.mark.parametrize("key_type", ["p256", "p384"])
@pytest.mark.parametrize("hash_name", SIGNING_HASHES)
def test_an_ecdsa_message_differs_from_openssls_in_the_signature_value_only(
    key_type: str, hash_name: str
) -> None:
    theirs = openssl_sign(pair(key_type), PAYLOAD, *PROFILE, "-md", hash_name)
    value = cms.parse(theirs).signer_infos[0].signature
    assert cms.assemble(value, certificate(key_type), "ecdsa", hash_name) == theirs


@pytest.mark.parametrize("key_type", ["rsa2048", "rsa4096", "p256", "p384"])
def test_openssl_verifies_our_message(key_type: str, tmp_path: Path) -> None:
    (tmp_path / "message").write_bytes(cms.build(PAYLOAD, signer(key_type)))
    (tmp_path / "payload").write_bytes(PAYLOAD)
    (tmp_path / "certificate").write_bytes(pair(key_type).certificate_pem)
    verified = openssl(
        *("cms", "-verify", "-binary", "-noverify", "-inform", "DER"),
        *("-in", tmp_path / "message", "-content", tmp_path / "payload"),
        *("-certfile", tmp_path / "certificate"),
    )
    assert verified == PAYLOAD


@pytest.mark.parametrize("key_type", ["rsa2048", "p256"])
def test_the_same_input_gives_the_same_message(key_type: str) -> None:
    assert cms.build(PAYLOAD, signer(key_type)) == cms.build(PAYLOAD, signer(key_type))


def test_a_message_with_an_rsa_2048_key_has_375_bytes() -> None:
    assert len(cms.build(PAYLOAD, signer("rsa2048"))) == 375


def test_what_was_built_is_read_back() -> None:
    message = cms.parse(cms.build(PAYLOAD, signer("p256"), "sha384"))
    (info,) = message.signer_infos
    assert (message.version, message.content_type) == (3, oids.DATA)
    assert (message.certificates, message.content, message.trailing) == ((), None, 0)
    assert (info.version, info.digest, info.algorithm) == (3, "sha384", "ecdsa")
    assert info.key_id == certificate("p256").subject_key_id
    assert (info.issuer, info.serial, info.signed_attributes) == (None, None, None)


@pytest.mark.parametrize("hash_name", ["sha1", "md5", "sha3-256", ""])
def test_other_hashes_are_not_signed_with(hash_name: str) -> None:
    with pytest.raises(UsageError, match="cannot sign with hash"):
        cms.build(PAYLOAD, signer("p256"), hash_name)


def test_issuer_and_serial_number_are_read() -> None:
    (info,) = cms.parse(openssl_sign(pair("rsa2048"), PAYLOAD, "-noattr", "-nocerts")).signer_infos
    own = certificate("rsa2048")
    assert (info.version, info.key_id) == (1, None)
    assert (info.issuer, info.serial) == (own.issuer_der, own.serial)


def test_embedded_certificates_are_read() -> None:
    message = cms.parse(openssl_sign(pair("rsa2048"), PAYLOAD, "-noattr"))
    assert message.certificates == (pair("rsa2048").certificate_der,)


def test_signed_attributes_are_reported() -> None:
    (info,) = cms.parse(openssl_sign(pair("rsa2048"), PAYLOAD)).signer_infos
    assert info.signed_attributes is not None
    assert info.signed_attributes.startswith(b"\x30")


def test_embedded_content_is_reported() -> None:
    assert cms.parse(openssl_sign(pair("p256"), PAYLOAD, "-nodetach")).content == PAYLOAD


def test_rsa_pss_is_reported() -> None:
    der = openssl_sign(pair("rsa2048"), PAYLOAD, *PROFILE, "-keyopt", "rsa_padding_mode:pss")
    assert cms.parse(der).signer_infos[0].algorithm == "rsa-pss"


@pytest.mark.parametrize("digest", ["sha1", "sha224", "sha384", "sha512", "sha3-256"])
def test_other_digests_are_read(digest: str) -> None:
    der = openssl_sign(pair("rsa2048"), PAYLOAD, *PROFILE, "-md", digest)
    assert cms.parse(der).signer_infos[0].digest == digest


def test_an_unknown_digest_is_its_dotted_oid() -> None:
    der = openssl_sign(pair("rsa2048"), PAYLOAD, *PROFILE, "-md", "md5")
    assert cms.parse(der).signer_infos[0].digest == "1.2.840.113549.2.5"


def test_several_signatures_are_read(tmp_path: Path) -> None:
    other = pair("p256")
    (tmp_path / "key").write_bytes(other.private_key_pem)
    (tmp_path / "certificate").write_bytes(other.certificate_pem)
    second = ("-signer", tmp_path / "certificate", "-inkey", tmp_path / "key")
    message = cms.parse(openssl_sign(pair("rsa2048"), PAYLOAD, *PROFILE, *second))
    assert {info.algorithm for info in message.signer_infos} == {"rsa", "ecdsa"}


def test_trailing_bytes_are_counted() -> None:
    assert cms.parse(cms.build(PAYLOAD, signer("p256")) + bytes(7)).trailing == 7


def test_another_content_type_than_signed_data_is_refused() -> None:
    signed_data = bytes.fromhex("06092a864886f70d010702")
    digested_data = bytes.fromhex("06092a864886f70d010705")
    der = cms.build(PAYLOAD, signer("p256")).replace(signed_data, digested_data)
    with pytest.raises(InputError, match="not SignedData"):
        cms.parse(der)


def test_indefinite_length_is_refused() -> None:
    with pytest.raises(InputError, match="BER, not DER"):
        cms.parse(b"\x30\x80" + bytes(20))


def test_a_length_in_more_bytes_than_needed_is_refused() -> None:
    der = cms.build(PAYLOAD, signer("rsa2048"))
    assert der[1] == 0x82
    with pytest.raises(InputError):
        cms.parse(b"\x30\x83\x00" + der[2:])


def test_a_message_larger_than_the_limit_is_refused() -> None:
    with pytest.raises(InputError, match="more than"):
        cms.parse(cms.build(PAYLOAD, signer("p256")) + bytes(cms.MAX_MESSAGE_SIZE))


@pytest.mark.parametrize("key_type", ["rsa2048", "p256"])
def test_a_message_cut_at_any_offset_is_refused(key_type: str) -> None:
    der = cms.build(PAYLOAD, signer(key_type))
    for end in range(len(der)):
        with pytest.raises(InputError):
            cms.parse(der[:end])


def test_a_damaged_message_is_read_or_refused() -> None:
    for der in flips(openssl_sign(pair("rsa2048"), PAYLOAD), 3000):
        try:
            cms.parse(der)
        except InputError:
            continue


def test_a_message_with_bytes_changed_at_random_is_read_or_refused() -> None:
    chance = seeded()
    valid = cms.build(PAYLOAD, signer("p256"))
    for _ in range(3000):
        der = bytearray(valid)
        for _ in range(chance.randrange(1, 6)):
            der[chance.randrange(80)] = chance.randrange(256)
        try:
            cms.parse(bytes(der))
        except InputError:
            continue


@given(st.binary(max_size=200))
def test_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(InputError):
        cms.parse(junk)


def test_parameters_of_an_algorithm_other_than_null_are_refused() -> None:
    rsa_encryption = bytes.fromhex("06092a864886f70d010101")
    der = cms.build(PAYLOAD, signer("rsa2048"))
    with pytest.raises(InputError, match="unknown parameters"):
        cms.parse(der.replace(rsa_encryption + b"\x05\0", rsa_encryption + b"\x04\0"))
