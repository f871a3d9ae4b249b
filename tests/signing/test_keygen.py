from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from bpfseal.errors import UsageError
from bpfseal.signing import keygen, mldsa
from bpfseal.signing.certificate import Certificate

from .support import openssl, pair


def as_text(key_type: str, folder: Path) -> str:
    (folder / "certificate").write_bytes(pair(key_type).certificate_pem)
    return openssl("x509", "-noout", "-text", "-in", folder / "certificate").decode()


@pytest.mark.parametrize(
    "key_type",
    [kind for kind in keygen.KEY_TYPES if kind not in mldsa.KINDS or mldsa.available()],
)
def test_openssl_reads_the_certificate_and_its_extensions(key_type: str, tmp_path: Path) -> None:
    text = as_text(key_type, tmp_path)
    lines = [line.strip() for line in text.splitlines()]
    assert "Version: 3 (0x2)" in lines
    assert lines[lines.index("X509v3 Basic Constraints: critical") + 1] == "CA:FALSE"
    assert lines[lines.index("X509v3 Key Usage: critical") + 1] == "Digital Signature"
    key_id = lines[lines.index("X509v3 Subject Key Identifier:") + 1]
    assert lines[lines.index("X509v3 Authority Key Identifier:") + 1] == key_id


def test_the_certificate_is_signed_with_its_own_key(tmp_path: Path) -> None:
    (tmp_path / "certificate").write_bytes(pair("p384").certificate_pem)
    path = tmp_path / "certificate"
    assert b"OK" in openssl("verify", "-check_ss_sig", "-CAfile", path, path)
    own = Certificate.from_der(pair("p384").certificate_der)
    own.verify_issued(own)


def test_the_certificate_is_valid_for_ten_years() -> None:
    made = keygen.generate("p256", "dated", not_before=datetime(2026, 1, 1, tzinfo=UTC))
    own = Certificate.from_der(made.certificate_der)
    assert own.problems(datetime(2035, 12, 31, tzinfo=UTC)) == ()
    assert own.problems(datetime(2036, 1, 3, tzinfo=UTC)) == ("expired on 2036-01-02",)


def test_openssl_reads_the_private_key(tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(pair("rsa2048").private_key_pem)
    assert b"2048 bit" in openssl("pkey", "-noout", "-text", "-in", tmp_path / "key")


def test_the_private_key_does_not_show_in_the_pairs_text() -> None:
    assert "PRIVATE" not in repr(pair("p256"))


@pytest.mark.parametrize(
    ("key_type", "name"), [("rsa1024", "x"), ("ed25519", "x"), ("p256", ""), ("p256", "x" * 65)]
)
def test_other_key_types_and_unfit_names_are_refused(key_type: str, name: str) -> None:
    with pytest.raises(UsageError):
        keygen.generate(key_type, name)


def test_an_empty_passphrase_is_refused() -> None:
    with pytest.raises(UsageError, match="passphrase is empty"):
        keygen.generate("p256", "x", passphrase=b"")
