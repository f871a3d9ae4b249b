"""Private keys in files, in every form that openssl writes."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpfseal.errors import InputError
from bpfseal.signing.signer import is_encrypted, load_signer

from .support import PAYLOAD, openssl, pair

PASSPHRASE = b"open sesame"
PLAIN = {
    "PKCS#8 PEM": ("pkey",),
    "PKCS#8 DER": ("pkey", "-outform", "DER"),
    "traditional PEM": ("pkey", "-traditional"),
    "traditional DER": ("pkey", "-traditional", "-outform", "DER"),
}
ENCRYPTED = {
    "PKCS#8 PEM": ("pkcs8", "-topk8"),
    "PKCS#8 DER": ("pkcs8", "-topk8", "-outform", "DER"),
    "PKCS#8 scrypt": ("pkcs8", "-topk8", "-scrypt"),
    "PKCS#8 3DES": ("pkcs8", "-topk8", "-v2", "des3"),
    "traditional PEM, AES": ("pkey", "-traditional", "-aes256"),
    "traditional PEM, 3DES": ("pkey", "-traditional", "-des3"),
}


def converted(key_type: str, folder: Path, options: tuple[str, ...], *more: str) -> bytes:
    (folder / "key.pem").write_bytes(pair(key_type).private_key_pem)
    return openssl(*options, "-in", folder / "key.pem", *more)


@pytest.mark.parametrize("form", PLAIN)
@pytest.mark.parametrize("key_type", ["rsa2048", "p256", "p384"])
def test_a_key_is_read_in_each_form(key_type: str, form: str, tmp_path: Path) -> None:
    key = converted(key_type, tmp_path, PLAIN[form])
    assert not is_encrypted(key)
    assert load_signer(key, pair(key_type).certificate_pem).sign(PAYLOAD, "sha256")


@pytest.mark.parametrize("form", ENCRYPTED)
@pytest.mark.parametrize("key_type", ["rsa2048", "p256"])
def test_an_encrypted_key_is_read_in_each_form(key_type: str, form: str, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_bytes(PASSPHRASE)
    key = converted(key_type, tmp_path, ENCRYPTED[form], "-passout", f"file:{tmp_path}/passphrase")
    certificate = pair(key_type).certificate_pem
    assert is_encrypted(key)
    assert load_signer(key, certificate, PASSPHRASE).sign(PAYLOAD, "sha256")
    with pytest.raises(InputError, match="wrong passphrase"):
        load_signer(key, certificate, b"other")
    with pytest.raises(InputError, match="is encrypted"):
        load_signer(key, certificate)


def test_parameters_of_the_curve_may_stand_before_the_key(tmp_path: Path) -> None:
    key = openssl("ecparam", "-name", "prime256v1", "-genkey")
    (tmp_path / "key").write_bytes(key)
    certificate = openssl("req", "-x509", "-key", tmp_path / "key", "-subj", "/CN=parameters")
    assert key.startswith(b"-----BEGIN EC PARAMETERS-----")
    assert load_signer(key, certificate).algorithm == "ecdsa"


def test_junk_is_not_encrypted() -> None:
    assert not is_encrypted(b"junk")
    assert not is_encrypted(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\njunk")
