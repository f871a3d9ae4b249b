"""ML-DSA: the form of RFC 9882 without signed attributes, for kernels after 7.3."""

from __future__ import annotations

import errno
from dataclasses import replace

import pytest

from bpfseal.errors import CapabilityError, UnsupportedError
from bpfseal.release import ANY_KERNEL, MAX_SIGNATURE_SIZE, NEWEST, RELEASES
from bpfseal.signing import cms, keygen, mldsa, oids, pkcs7_parser
from bpfseal.signing.ber import RefusedError
from bpfseal.signing.pkcs7_parser import ParsedMessage
from bpfseal.signing.signer import load_signer
from bpfseal.signing.verify import verify_signature

from .support import PAYLOAD, certificate, flips, pair, signer


def read(message: bytes) -> ParsedMessage:
    return pkcs7_parser.parse(message, ANY_KERNEL)


needs_mldsa = pytest.mark.skipif(
    not mldsa.available(), reason="the installed cryptography has no ML-DSA"
)


@needs_mldsa
@pytest.mark.parametrize("kind", mldsa.KINDS)
def test_a_signature_verifies(kind: str) -> None:
    message = cms.build(PAYLOAD, signer(kind))
    found = verify_signature(message, PAYLOAD, [certificate(kind)])
    assert (found.certificate, found.algorithm) == (certificate(kind), kind)


@needs_mldsa
@pytest.mark.parametrize("kind", mldsa.KINDS)
def test_the_payload_itself_is_signed_and_sha_512_is_named(kind: str) -> None:
    (info,) = read(cms.build(PAYLOAD, signer(kind), "sha256")).signer_infos
    assert (info.algorithm, info.digest, info.attributes) == (kind, "sha512", None)
    assert len(info.value) == mldsa.SIGNATURE_SIZES[kind]
    certificate(kind).verify_signature(kind, "", PAYLOAD, info.value)


@needs_mldsa
@pytest.mark.parametrize("kind", mldsa.KINDS)
def test_the_signature_algorithm_has_no_parameters(kind: str) -> None:
    message = cms.build(PAYLOAD, signer(kind))
    identifier = bytes.fromhex("300b0609") + bytes.fromhex("6086480165030403")
    assert identifier + bytes([int(oids.MLDSA[kind].split(".")[-1])]) in message


@needs_mldsa
@pytest.mark.parametrize(
    ("kind", "size"), [("mldsa44", 2537), ("mldsa65", 3426), ("mldsa87", 4744)]
)
def test_every_message_fits_into_what_kernels_take(kind: str, size: int) -> None:
    message = cms.build(PAYLOAD, signer(kind))
    assert len(message) == size
    assert len(message) <= MAX_SIGNATURE_SIZE


@needs_mldsa
def test_a_message_that_kernels_would_not_take_is_not_made() -> None:
    with pytest.raises(UnsupportedError, match="more than the 8192 of kernels"):
        cms.assemble(bytes(8192), certificate("mldsa87"), "mldsa87", "sha512")


@needs_mldsa
@pytest.mark.parametrize(
    ("release", "expected"), [("6.18", errno.ENOPKG), ("7.3", errno.EKEYREJECTED)]
)
def test_kernels_up_to_7_3_refuse_it(release: str, expected: int) -> None:
    # Those from 7.0 on know its name and lack the algorithm.
    message, trusted = cms.build(PAYLOAD, signer("mldsa65")), [certificate("mldsa65")]
    with pytest.raises(RefusedError) as caught:
        verify_signature(message, PAYLOAD, trusted, RELEASES[release].crypto())
    assert caught.value.errno == expected
    assert verify_signature(message, PAYLOAD, trusted, NEWEST)


@needs_mldsa
def test_a_kernel_does_not_need_the_digest_that_the_message_names() -> None:
    message, trusted = cms.build(PAYLOAD, signer("mldsa44")), [certificate("mldsa44")]
    bare = replace(NEWEST, digests=frozenset({"sha256"}))
    assert verify_signature(message, PAYLOAD, trusted, bare)


@needs_mldsa
def test_the_certificate_says_that_kernels_up_to_7_3_cannot() -> None:
    assert certificate("mldsa87").problems() == (
        "key of type mldsa87: kernels up to 7.3 have no ML-DSA",
    )


@needs_mldsa
def test_an_ml_dsa_certificate_is_signed_with_its_own_key() -> None:
    certificate("mldsa44").verify_issued(certificate("mldsa44"))


@needs_mldsa
@pytest.mark.parametrize("payload", [PAYLOAD + b"\0", PAYLOAD[1:], b""])
def test_another_payload_is_refused(payload: bytes) -> None:
    with pytest.raises(RefusedError) as caught:
        verify_signature(cms.build(PAYLOAD, signer("mldsa44")), payload, [certificate("mldsa44")])
    assert caught.value.errno == errno.EKEYREJECTED


@needs_mldsa
def test_a_flipped_bit_of_the_signature_is_refused() -> None:
    (info,) = read(cms.build(PAYLOAD, signer("mldsa44"))).signer_infos
    for changed in flips(info.value, 100):
        message = cms.assemble(changed, certificate("mldsa44"), "mldsa44", "sha512")
        with pytest.raises(RefusedError):
            verify_signature(message, PAYLOAD, [certificate("mldsa44")])


@needs_mldsa
@pytest.mark.parametrize("other", ["mldsa65", "rsa2048", "p256"])
def test_the_algorithm_of_another_key_is_refused(other: str) -> None:
    value = signer("mldsa44").sign(PAYLOAD, "sha512")
    message = cms.assemble(value, certificate(other), "mldsa44", "sha512")
    with pytest.raises(RefusedError):
        verify_signature(message, PAYLOAD, [certificate(other), certificate("mldsa44")])


@needs_mldsa
def test_an_encrypted_key_opens_with_its_passphrase() -> None:
    made = keygen.generate("mldsa65", "encrypted", passphrase=b"open sesame")
    assert load_signer(made.private_key_pem, made.certificate_pem, b"open sesame")


@needs_mldsa
def test_an_installation_without_ml_dsa_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made, message = pair("mldsa65"), cms.build(PAYLOAD, signer("mldsa65"))
    trusted = [certificate("mldsa65")]
    monkeypatch.setattr(mldsa, "_classes", dict)
    for attempt in (
        lambda: keygen.generate("mldsa65", "x"),
        lambda: load_signer(made.private_key_pem, made.certificate_pem),
        lambda: verify_signature(message, PAYLOAD, trusted),
    ):
        with pytest.raises(CapabilityError, match="no ML-DSA") as caught:
            attempt()
        assert "pip install" in caught.value.hint
