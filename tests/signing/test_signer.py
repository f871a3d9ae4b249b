from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bpfseal.errors import InputError, UnsupportedError, UsageError
from bpfseal.signing import keygen
from bpfseal.signing.signer import Signer, load_signer

from .support import PAYLOAD, openssl, pair, signer


def test_a_loaded_key_is_a_signer() -> None:
    loaded: Signer = signer("rsa2048")
    assert len(loaded.sign(PAYLOAD, "sha256")) == 256


def test_a_private_key_does_not_show_in_a_signers_text() -> None:
    assert "key=" not in repr(signer("p256"))


def test_a_key_and_a_certificate_may_be_der(tmp_path: Path) -> None:
    made = pair("p256")
    (tmp_path / "pem").write_bytes(made.private_key_pem)
    der = openssl("pkey", "-in", tmp_path / "pem", "-outform", "DER")
    assert load_signer(der, made.certificate_der).algorithm == "ecdsa"


def test_key_and_certificate_may_share_a_file() -> None:
    made = pair("rsa2048")
    both = made.private_key_pem + made.certificate_pem
    assert load_signer(both, both).algorithm == "rsa"


def test_an_encrypted_key_opens_with_its_passphrase() -> None:
    made = keygen.generate("p256", "encrypted", passphrase=b"open sesame")
    assert b"ENCRYPTED" in made.private_key_pem
    assert load_signer(made.private_key_pem, made.certificate_pem, b"open sesame")


def test_an_encrypted_key_without_its_passphrase_is_refused_with_a_hint() -> None:
    made = keygen.generate("p256", "encrypted", passphrase=b"open sesame")
    with pytest.raises(InputError, match="is encrypted") as caught:
        load_signer(made.private_key_pem, made.certificate_pem)
    assert "--passphrase-file" in caught.value.hint


def test_a_wrong_passphrase_is_refused() -> None:
    made = keygen.generate("p256", "encrypted", passphrase=b"open sesame")
    with pytest.raises(InputError, match="wrong passphrase"):
        load_signer(made.private_key_pem, made.certificate_pem, b"other")


def test_a_passphrase_for_a_key_that_is_not_encrypted_is_not_looked_at() -> None:
    made = pair("p256")
    assert load_signer(made.private_key_pem, made.certificate_pem, b"unneeded")


@pytest.mark.parametrize("other", ["rsa3072", "p256"])
def test_the_certificate_of_another_key_is_refused(other: str) -> None:
    with pytest.raises(InputError, match="does not belong"):
        load_signer(pair("rsa2048").private_key_pem, pair(other).certificate_pem)


def test_a_certificate_without_subject_key_identifier_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(pair("p256").private_key_pem)
    certificate = openssl(
        *("req", "-x509", "-key", tmp_path / "key", "-subj", "/CN=bare"),
        *("-addext", "subjectKeyIdentifier=none"),
    )
    with pytest.raises(InputError, match="no subjectKeyIdentifier") as caught:
        load_signer(pair("p256").private_key_pem, certificate)
    assert "bpfseal keygen" in caught.value.hint


@pytest.mark.parametrize(
    "options",
    [
        ("-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"),
        ("-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"),
        ("-algorithm", "ED25519"),
    ],
)
def test_keys_that_cannot_sign_loaders_are_refused(options: tuple[str, ...]) -> None:
    with pytest.raises(UnsupportedError, match="kind or size"):
        load_signer(openssl("genpkey", *options), pair("p256").certificate_pem)


def test_other_hashes_are_not_signed_with() -> None:
    with pytest.raises(UsageError, match="cannot sign with hash sha1"):
        signer("p256").sign(PAYLOAD, "sha1")


@given(st.binary(max_size=300), st.sampled_from([b"", b"-----BEGIN PRIVATE KEY-----\n"]))
def test_junk_is_no_private_key(junk: bytes, head: bytes) -> None:
    with pytest.raises(InputError):
        load_signer(head + junk, pair("p256").certificate_pem)
