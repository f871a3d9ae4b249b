from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfseal.errors import BpfsealError, InputError, VerificationError
from bpfseal.signing.certificate import Certificate

from .support import PAYLOAD, certificate, flips, openssl, pair, signer


def made_by_openssl(tmp_path: Path, *options: str, key: str = "rsa:2048") -> Certificate:
    request = ("req", "-x509", "-newkey", key, "-nodes", "-subj", "/CN=other", "-outform", "DER")
    return Certificate.from_der(openssl(*request, "-keyout", tmp_path / "key", *options))


def test_pem_and_der_give_the_same_certificate() -> None:
    made = pair("rsa2048")
    from_pem = Certificate.from_pem_or_der(made.certificate_pem)
    assert from_pem == Certificate.from_pem_or_der(made.certificate_der)
    assert from_pem.der == made.certificate_der


def test_the_first_certificate_is_found_after_a_private_key() -> None:
    made = pair("p256")
    data = made.private_key_pem + made.certificate_pem
    assert Certificate.from_pem_or_der(data).der == made.certificate_der


def test_all_certificates_of_a_pem_file_are_read() -> None:
    data = pair("p256").certificate_pem + pair("p384").certificate_pem
    assert [own.key_type for own in Certificate.all_from_pem_or_der(data)] == ["p256", "p384"]


@pytest.mark.parametrize("key_type", ["rsa2048", "rsa4096", "p256", "p384"])
def test_the_kind_of_key_is_named(key_type: str) -> None:
    assert certificate(key_type).key_type == key_type


def test_the_fingerprint_is_sha256_of_the_certificate() -> None:
    own = certificate("p256")
    assert own.fingerprint == hashlib.sha256(own.der).hexdigest()


def test_a_certificate_is_named_by_key_id_or_by_serial_and_issuer_together() -> None:
    own = certificate("p256").parsed
    assert own.key_id is not None
    assert own.is_named(own.key_id)
    assert own.is_named(own.serial + own.issuer)
    assert not own.is_named(own.issuer + own.serial)
    assert not own.is_named(b"other")
    assert not own.is_named(b"")


def test_a_certificate_from_keygen_has_no_problems() -> None:
    assert certificate("rsa2048").problems(datetime.now(UTC) + timedelta(days=1)) == ()


def test_the_validity_period_is_reported_against_a_given_time_only() -> None:
    own = certificate("p256")
    now = datetime.now(UTC)
    assert "not valid before" in own.problems(now - timedelta(days=2))[0]
    assert "expired on" in own.problems(now + timedelta(days=4000))[0]
    assert own.problems() == ()


def test_a_missing_subject_key_identifier_is_reported(tmp_path: Path) -> None:
    own = made_by_openssl(tmp_path, "-addext", "subjectKeyIdentifier=none")
    assert own.subject_key_id is None
    assert any("no subjectKeyIdentifier" in problem for problem in own.problems())


def test_a_missing_key_usage_is_reported(tmp_path: Path) -> None:
    assert any("no keyUsage" in problem for problem in made_by_openssl(tmp_path).problems())


def test_a_key_usage_without_digital_signature_is_reported(tmp_path: Path) -> None:
    own = made_by_openssl(tmp_path, "-addext", "keyUsage=keyEncipherment")
    assert own.problems() == ("keyUsage lacks digitalSignature",)


def test_a_short_rsa_key_is_reported(tmp_path: Path) -> None:
    own = made_by_openssl(tmp_path, "-addext", "keyUsage=digitalSignature", key="rsa:1024")
    assert own.problems() == ("weak key: rsa1024, less than 2048 bits",)


def test_a_kind_of_key_that_no_kernel_takes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="kernels take: -ENOPKG"):
        made_by_openssl(tmp_path, key="ed25519")


@pytest.mark.parametrize("key_type", ["rsa2048", "p256", "p384"])
def test_a_good_signature_verifies(key_type: str) -> None:
    own = signer(key_type)
    signature = own.sign(PAYLOAD, "sha512")
    own.certificate.verify_signature(own.algorithm, "sha512", PAYLOAD, signature)


@pytest.mark.parametrize(
    ("algorithm", "digest", "data"),
    [
        ("rsa", "sha256", PAYLOAD + b"\0"),
        ("rsa", "sha384", PAYLOAD),
        ("rsa", "md5", PAYLOAD),
        ("ecdsa", "sha256", PAYLOAD),
        ("rsa-pss", "sha256", PAYLOAD),
    ],
)
def test_a_signature_over_other_data_or_of_another_kind_does_not_verify(
    algorithm: str, digest: str, data: bytes
) -> None:
    own = signer("rsa2048")
    signature = own.sign(PAYLOAD, "sha256")
    with pytest.raises(VerificationError):
        own.certificate.verify_signature(algorithm, digest, data, signature)


@pytest.mark.parametrize("data", [b"", b"junk", b"-----BEGIN CERTIFICATE-----\nAA", bytes(2 << 20)])
def test_what_is_no_certificate_is_refused(data: bytes) -> None:
    with pytest.raises(InputError):
        Certificate.from_pem_or_der(data)


def test_a_private_key_is_no_certificate() -> None:
    with pytest.raises(InputError, match="in the PEM file"):
        Certificate.from_pem_or_der(pair("p256").private_key_pem)


def test_a_damaged_certificate_is_read_or_refused() -> None:
    for der in flips(certificate("p256").der, 3000):
        try:
            own = Certificate.from_der(der)
            own.problems(datetime.now(UTC))
            own.verify_issued(own)
        except BpfsealError:
            continue


@given(st.binary(max_size=300))
def test_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(InputError):
        Certificate.from_pem_or_der(junk)
