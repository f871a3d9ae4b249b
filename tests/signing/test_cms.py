from __future__ import annotations

from pathlib import Path

import pytest

from bpfseal.errors import UsageError
from bpfseal.release import ANY_KERNEL
from bpfseal.signing import cms, pkcs7_parser
from bpfseal.signing.pkcs7_parser import ParsedMessage
from bpfseal.signing.signer import SIGNING_HASHES

from .support import PAYLOAD, certificate, openssl, openssl_sign, pair, signer

PROFILE = ("-noattr", "-nocerts", "-keyid")


def read(message: bytes) -> ParsedMessage:
    return pkcs7_parser.parse(message, ANY_KERNEL)


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
    value = read(theirs).signer_infos[0].value
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
    message = read(cms.build(PAYLOAD, signer("p256"), "sha384"))
    (info,) = message.signer_infos
    assert (message.version, message.content_type, message.digests) == (3, "data", ("sha384",))
    assert (message.certificates, message.has_content) == ((), False)
    assert message.has_standard_tags
    assert not message.has_parameters
    assert (info.version, info.digest, info.algorithm) == (3, "sha384", "ecdsa")
    assert (info.key_id, info.name) == (certificate("p256").subject_key_id, info.key_id)
    assert (info.issuer, info.serial, info.attributes) == (b"", b"", None)


@pytest.mark.parametrize("hash_name", ["sha1", "md5", "sha3-256", ""])
def test_other_hashes_are_not_signed_with(hash_name: str) -> None:
    with pytest.raises(UsageError, match="cannot sign with hash"):
        cms.build(PAYLOAD, signer("p256"), hash_name)
