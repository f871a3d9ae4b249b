"""Where trusted certificates come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from bpfseal.errors import InputError
from bpfseal.signing import certificate_file
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.certificate_file import MAX_CERTIFICATES, certificate_blocks, der_of
from bpfseal.signing.trust import TrustStore, read_certificates

from .support import certificate, flips, openssl, pair

ONE, TWO = certificate("p256"), certificate("p384")


def refused(data: bytes) -> str:
    with pytest.raises(InputError) as caught:
        read_certificates(data)
    return str(caught.value)


def test_a_pem_file_may_hold_several_certificates_and_other_text() -> None:
    pem = b"the first:\n" + pair("p256").certificate_pem + b"\nthe other:\n"
    assert read_certificates(pem + pair("p384").certificate_pem).certificates == (ONE, TWO)


def test_keys_in_a_pem_file_are_passed_over() -> None:
    both = pair("p256").private_key_pem + pair("p256").certificate_pem
    assert read_certificates(both) == TrustStore((ONE,))


def test_der_certificates_may_stand_one_right_after_the_other() -> None:
    # The kernel's own list and what extract-sys-certs writes look like this.
    assert read_certificates(ONE.der) == TrustStore((ONE,))
    assert read_certificates(ONE.der + TWO.der).certificates == (ONE, TWO)
    assert read_certificates(ONE.der + TWO.der + bytes(5)).certificates == (ONE, TWO)


def test_openssl_certificates_are_read(tmp_path: Path) -> None:
    (tmp_path / "one.pem").write_bytes(pair("p256").certificate_pem)
    text = openssl("x509", "-in", tmp_path / "one.pem", "-text")
    assert read_certificates(text).certificates == (ONE,)


def test_each_certificate_counts_once() -> None:
    assert read_certificates(ONE.der + ONE.der).certificates == (ONE,)
    assert (TrustStore((ONE,)) + TrustStore((TWO, ONE))).certificates == (ONE, TWO)


def test_one_of_several_that_cannot_be_read_is_passed_over_with_a_warning() -> None:
    # As kernels do with their own list.
    junk = b"\x30\x03\x02\x01\x01"
    store = read_certificates(ONE.der + junk + TWO.der).named("dump.der")
    assert store.certificates == (ONE, TWO)
    (warning,) = store.warnings
    assert warning.startswith(f"dump.der: the certificate at byte {len(ONE.der)} is passed over: ")


def test_a_file_without_any_that_can_be_read_is_refused() -> None:
    junk = b"\x30\x03\x02\x01\x01"
    assert "not an X.509 certificate" in refused(junk)
    assert "none of 2 certificates can be read" in refused(junk * 2)
    assert "no X.509 certificates" in refused(b"")
    assert "no X.509 certificates" in refused(b"hello")


def test_a_truncated_list_is_refused_with_its_place() -> None:
    place = f"the certificate at byte {len(ONE.der)} is truncated"
    assert place in refused(ONE.der + TWO.der[:-1])
    assert f"byte {len(ONE.der)} begins no certificate" in refused(ONE.der + b"hello")


def test_a_private_key_is_no_certificate() -> None:
    assert "is it a private key?" in refused(pair("p256").private_key_pem)


@pytest.mark.parametrize(
    "listing",
    [
        b"Keyring\n 162388393 ---lswrv      0     0  keyring: .builtin_trusted_keys\n"
        b" 733417424 ---lswrv      0     0   \\_ asymmetric: Build time kernel key: 0a1b\n",
        b"09ae31a9 I------     1 perm 1f030000     0     0 asymmetri Build: X509.rsa 0a1b []\n"
        b"1d16ca16 I------     1 perm 1f0b0000     0     0 keyring   .builtin_trusted_keys: 1\n",
    ],
    ids=["keyctl show", "/proc/keys"],
)
def test_a_listing_of_keys_holds_no_certificates_and_says_so(listing: bytes) -> None:
    assert "a listing of keys" in refused(listing)


def test_a_certificate_whose_own_signature_is_wrong_is_refused_as_by_kernels() -> None:
    damaged = bytearray(ONE.der)
    damaged[-1] ^= 1
    assert "-EKEYREJECTED: its own signature does not match" in refused(bytes(damaged))


def test_no_bit_of_the_key_or_the_signature_of_a_certificate_can_be_flipped() -> None:
    key = ONE.public_key_der
    parts = [(ONE.der.index(key), len(key)), (len(ONE.der) - 60, 60)]
    for start, size in parts:
        part = ONE.der[start : start + size]
        for flipped in flips(part, 100):
            data = ONE.der[:start] + flipped + ONE.der[start + size :]
            try:
                (found,) = read_certificates(data).certificates
            except InputError:
                continue
            assert found.algorithm not in ("rsa", "ecdsa")  # a key of no known kind


def test_there_is_a_limit_on_the_number() -> None:
    junk = b"\x30\x00" * (MAX_CERTIFICATES + 1)
    assert "more than 4096 certificates" in refused(junk)


def test_a_certificate_of_an_authority_is_taken_without_its_issuer(tmp_path: Path) -> None:
    openssl("genpkey", "-algorithm", "RSA", "-out", tmp_path / "key")
    (tmp_path / "ca.pem").write_bytes(pair("p256").certificate_pem)
    (tmp_path / "ca.key").write_bytes(pair("p256").private_key_pem)
    issuer = ("-CA", tmp_path / "ca.pem", "-CAkey", tmp_path / "ca.key")
    pem = openssl("req", "-x509", "-key", tmp_path / "key", "-subj", "/CN=leaf", *issuer)
    (leaf,) = read_certificates(pem).certificates
    assert leaf == Certificate.from_pem_or_der(pem)


def test_a_file_is_cut_into_certificates_without_reading_them() -> None:
    first, second = certificate("rsa2048").der, certificate("p256").der
    blocks = certificate_blocks(first + second)
    assert blocks == [(0, first), (len(first), second)]
    pem = b"comment\n" + pair("p256").certificate_pem
    ((position, block),) = certificate_blocks(pem)
    assert (position, der_of(block)) == (8, second)
    with pytest.raises(InputError, match="not in base64"):
        der_of(b"-----BEGIN CERTIFICATE-----\n@@@\n-----END CERTIFICATE-----")


def test_blank_lines_are_passed_over_one_by_one() -> None:
    """Each line of a listing of keys is looked at by itself, not with all blank lines before it."""
    listing = certificate_file._LISTING
    blanks = b"\n" * 1000
    assert listing.search(blanks + b"1a --alswrv 0 0 keyring: _ses") is not None
    found = listing.search(blanks + b" \t1a --alswrv 0 0 keyring: _ses")
    assert found is not None
    assert found.start() == len(blanks)  # it used to begin at the first blank line


def test_stores_are_put_together_at_once() -> None:
    first, second = TrustStore((ONE,), ("one",)), TrustStore((TWO, ONE), ("two",))
    assert TrustStore.of([first, second]) == TrustStore((ONE, TWO), ("one", "two"))
    assert TrustStore.of([]) == TrustStore()
