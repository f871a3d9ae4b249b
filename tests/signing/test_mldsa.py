"""ML-DSA: the form of RFC 9882 without signed attributes, for kernels after 7.3."""

from __future__ import annotations

import errno

import pytest

from bpfseal.errors import CapabilityError, UnsupportedError
from bpfseal.release import MAX_SIGNATURE_SIZE
from bpfseal.signing import cms, keygen, mldsa, oids
from bpfseal.signing.pkcs7 import NEWER_ALGORITHMS, Pkcs7Error, check_pkcs7, find_in
from bpfseal.signing.signer import load_signer
from bpfseal.signing.verify import verify_signature

from .support import PAYLOAD, certificate, flips, pair, signer

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
    (info,) = cms.parse(cms.build(PAYLOAD, signer(kind), "sha256")).signer_infos
    assert (info.algorithm, info.digest, info.signed_attributes) == (kind, "sha512", None)
    assert len(info.signature) == mldsa.SIGNATURE_SIZES[kind]
    certificate(kind).verify_signature(kind, "", PAYLOAD, info.signature)


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
def test_kernels_up_to_7_3_answer_enopkg() -> None:
    message = cms.parse(cms.build(PAYLOAD, signer("mldsa65")))
    find = find_in([certificate("mldsa65")])
    with pytest.raises(Pkcs7Error, match=r"up to 7\.3") as caught:
        check_pkcs7(message, PAYLOAD, find)
    assert caught.value.errno == errno.ENOPKG
    assert check_pkcs7(message, PAYLOAD, find, algorithms=NEWER_ALGORITHMS)


@needs_mldsa
def test_a_kernel_does_not_need_the_digest_that_the_message_names() -> None:
    message = cms.parse(cms.build(PAYLOAD, signer("mldsa44")))
    find = find_in([certificate("mldsa44")])
    assert check_pkcs7(message, PAYLOAD, find, {"sha256"}, NEWER_ALGORITHMS)


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
    with pytest.raises(Pkcs7Error) as caught:
        verify_signature(cms.build(PAYLOAD, signer("mldsa44")), payload, [certificate("mldsa44")])
    assert caught.value.errno == errno.EKEYREJECTED


@needs_mldsa
def test_a_flipped_bit_of_the_signature_is_refused() -> None:
    (info,) = cms.parse(cms.build(PAYLOAD, signer("mldsa44"))).signer_infos
    for changed in flips(info.signature, 100):
        message = cms.assemble(changed, certificate("mldsa44"), "mldsa44", "sha512")
        with pytest.raises(Pkcs7Error):
            verify_signature(message, PAYLOAD, [certificate("mldsa44")])


@needs_mldsa
@pytest.mark.parametrize("other", ["mldsa65", "rsa2048", "p256"])
def test_the_algorithm_of_another_key_is_refused(other: str) -> None:
    value = signer("mldsa44").sign(PAYLOAD, "sha512")
    message = cms.assemble(value, certificate(other), "mldsa44", "sha512")
    with pytest.raises(Pkcs7Error):
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
