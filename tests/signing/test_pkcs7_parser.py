"""Messages are read as kernels read them: the examples that stand for a rule.

All of 1,642 measured messages are in tests/kernel/model/test_signatures_measured.py.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfseal.release import ANY_KERNEL, RELEASES
from bpfseal.signing import cms, der, oids, pkcs7_parser
from bpfseal.signing.ber import RefusedError
from bpfseal.signing.pkcs7_parser import ParsedMessage
from support import cms_writer

from .support import PAYLOAD, certificate, flips, openssl_sign, pair, seeded, signer

PROFILE = ("-noattr", "-nocerts", "-keyid")


def read(message: bytes) -> ParsedMessage:
    return pkcs7_parser.parse(message, ANY_KERNEL)


def refused(message: bytes) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        read(message)
    return caught.value


def test_issuer_and_serial_number_are_read() -> None:
    (info,) = read(openssl_sign(pair("rsa2048"), PAYLOAD, "-noattr", "-nocerts")).signer_infos
    own = certificate("rsa2048").parsed
    assert (info.version, info.key_id) == (1, b"")
    assert (info.issuer, info.serial) == (own.issuer, own.serial)
    assert own.is_named(info.name)


def test_embedded_certificates_are_read() -> None:
    message = read(openssl_sign(pair("rsa2048"), PAYLOAD, "-noattr"))
    assert [each.der for each in message.certificates] == [pair("rsa2048").certificate_der]


def test_certificates_among_revocation_lists_are_read_and_dropped() -> None:
    made = read(openssl_sign(pair("rsa2048"), PAYLOAD, "-noattr"))
    (embedded,) = made.certificates
    parts = [der.integer(1), der.element(0x31), der.sequence(der.oid(oids.DATA))]
    listed = der.explicit(1, der.sequence(embedded.der))
    info = cms_writer.signer_info(cms_writer.key("A"), PAYLOAD, is_by_name=True)
    parts[1] = der.element(0x31, der.sequence(der.oid(oids.DIGESTS["sha256"])))
    signed_data = der.sequence(*parts, listed, der.element(0x31, info))
    message = der.sequence(der.oid(oids.SIGNED_DATA), der.explicit(0, signed_data))
    assert read(message).certificates == ()
    assert refused(message.replace(embedded.der, embedded.der[:-1] + b"!")).errno == errno.EINVAL


def test_signed_attributes_are_read_as_they_are_hashed() -> None:
    (info,) = read(openssl_sign(pair("rsa2048"), PAYLOAD, "-nosmimecap")).signer_infos
    assert info.attributes is not None
    assert info.attributes.startswith(b"\x31")
    assert info.signing_time is not None


def test_the_capabilities_of_s_mime_are_ekeyrejected() -> None:
    error = refused(openssl_sign(pair("rsa2048"), PAYLOAD))
    assert error.errno == errno.EKEYREJECTED
    assert "-nosmimecap" in error.hint


def test_embedded_content_is_reported() -> None:
    assert read(openssl_sign(pair("p256"), PAYLOAD, "-noattr", "-nodetach")).has_content


def test_rsa_pss_is_enopkg() -> None:
    made = openssl_sign(pair("rsa2048"), PAYLOAD, *PROFILE, "-keyopt", "rsa_padding_mode:pss")
    assert refused(made).errno == errno.ENOPKG


@pytest.mark.parametrize("digest", ["sha1", "sha224", "sha384", "sha512", "sha3-256"])
def test_other_digests_are_read(digest: str) -> None:
    made = openssl_sign(pair("rsa2048"), PAYLOAD, *PROFILE, "-md", digest)
    assert read(made).signer_infos[0].digest == digest


def test_a_digest_that_no_parser_knows_is_enopkg() -> None:
    made = openssl_sign(pair("rsa2048"), PAYLOAD, *PROFILE, "-md", "md5")
    assert refused(made).errno == errno.ENOPKG


def test_several_signatures_are_read_in_their_order(tmp_path: Path) -> None:
    other = pair("p256")
    (tmp_path / "key").write_bytes(other.private_key_pem)
    (tmp_path / "certificate").write_bytes(other.certificate_pem)
    second = ("-signer", tmp_path / "certificate", "-inkey", tmp_path / "key")
    message = read(openssl_sign(pair("rsa2048"), PAYLOAD, *PROFILE, *second))
    assert {info.algorithm for info in message.signer_infos} == {"rsa", "ecdsa"}


def test_what_stands_behind_the_message_is_not_part_of_it() -> None:
    made = cms.build(PAYLOAD, signer("p256"))
    assert read(made + bytes(7)).size == len(made)


def test_another_content_type_than_signed_data_is_einval() -> None:
    signed_data = bytes.fromhex("06092a864886f70d010702")
    digested_data = bytes.fromhex("06092a864886f70d010705")
    made = cms.build(PAYLOAD, signer("p256")).replace(signed_data, digested_data)
    assert refused(made).errno == errno.EINVAL


def test_a_length_of_more_than_two_bytes_is_ebadmsg() -> None:
    made = cms.build(PAYLOAD, signer("rsa2048"))
    assert made[1] == 0x82
    assert "more than two bytes" in refused(b"\x30\x83\x00" + made[2:]).reason


def test_an_indefinite_length_is_read() -> None:
    made = cms.build(PAYLOAD, signer("rsa2048"))
    message = read(b"\x30\x80" + made[4:] + b"\0\0")
    assert message.signer_infos == read(made).signer_infos


def test_parameters_of_any_kind_are_read_and_noted() -> None:
    rsa_encryption = bytes.fromhex("06092a864886f70d010101")
    made = cms.build(PAYLOAD, signer("rsa2048"))
    assert not read(made).has_parameters
    assert read(made.replace(rsa_encryption + b"\5\0", rsa_encryption + b"\4\0")).has_parameters


def test_names_of_ml_dsa_are_known_from_7_0_on() -> None:
    rsa, ml_dsa = bytes.fromhex("06092a864886f70d010101"), bytes.fromhex("0609608648016503040312")
    made = cms.build(PAYLOAD, signer("rsa2048")).replace(rsa, ml_dsa)
    for release in RELEASES.values():
        if release.name in ("6.18", "6.19"):
            with pytest.raises(RefusedError, match="-ENOPKG: the kernel does not know"):
                pkcs7_parser.parse(made, release.crypto())
        else:
            assert pkcs7_parser.parse(made, release.crypto())


@pytest.mark.parametrize("key_type", ["rsa2048", "p256"])
def test_a_message_cut_at_any_offset_is_refused(key_type: str) -> None:
    made = cms.build(PAYLOAD, signer(key_type))
    for end in range(len(made)):
        refused(made[:end])


def test_a_damaged_message_is_read_or_refused() -> None:
    for made in flips(openssl_sign(pair("rsa2048"), PAYLOAD, "-nosmimecap"), 3000):
        try:
            read(made)
        except RefusedError:
            continue


def test_a_message_with_bytes_changed_at_random_is_read_or_refused() -> None:
    chance = seeded()
    valid = cms.build(PAYLOAD, signer("p256"))
    for _ in range(3000):
        made = bytearray(valid)
        for _ in range(chance.randrange(1, 6)):
            made[chance.randrange(80)] = chance.randrange(256)
        try:
            read(bytes(made))
        except RefusedError:
            continue


@given(st.binary(max_size=200))
def test_junk_is_refused(junk: bytes) -> None:
    refused(junk)
