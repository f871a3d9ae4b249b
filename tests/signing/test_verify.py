"""Each refusal is the answer of a real kernel to the same signature."""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bpfseal.errors import VerificationError
from bpfseal.signing import cms
from bpfseal.signing.certificate import Certificate, KeyId
from bpfseal.signing.keygen import KeyPair
from bpfseal.signing.pkcs7 import Pkcs7Error, check_pkcs7, find_in
from bpfseal.signing.verify import VerifiedSignature, verify_signature

from .support import PAYLOAD, certificate, flips, openssl, openssl_sign, pair, signer

PROFILE = ("-noattr", "-nocerts", "-keyid")
RSA = "rsa2048"


def verified(der: bytes, payload: bytes = PAYLOAD, key_type: str = RSA) -> VerifiedSignature:
    return verify_signature(der, payload, [certificate("p384"), certificate(key_type)])


def refused(der: bytes, payload: bytes = PAYLOAD) -> Pkcs7Error:
    with pytest.raises(Pkcs7Error) as caught:
        verified(der, payload)
    return caught.value


def issued(folder: Path, name: str, by: str = "") -> KeyPair:
    """Make a key, and a certificate that the earlier key `by` issued; without `by`, self-signed."""
    openssl("genpkey", "-algorithm", "RSA", "-out", folder / f"{name}.key")
    issuer = ("-CA", folder / f"{by}.pem", "-CAkey", folder / f"{by}.key") if by else ()
    subject = ("-key", folder / f"{name}.key", "-subj", f"/CN={name}", *issuer)
    openssl("req", "-x509", *subject, "-out", folder / f"{name}.pem")
    pem = (folder / f"{name}.pem").read_bytes()
    key = (folder / f"{name}.key").read_bytes()
    return KeyPair(key, pem, Certificate.from_pem_or_der(pem).der)


def both(tmp_path: Path, *options: str) -> bytes:
    """One message with two signatures: RSA and P-256."""
    (tmp_path / "key").write_bytes(pair("p256").private_key_pem)
    (tmp_path / "certificate").write_bytes(pair("p256").certificate_pem)
    second = ("-signer", tmp_path / "certificate", "-inkey", tmp_path / "key")
    return openssl_sign(pair(RSA), PAYLOAD, *options, *second)


@pytest.mark.parametrize("hash_name", ["sha256", "sha384", "sha512"])
@pytest.mark.parametrize("key_type", ["rsa2048", "rsa4096", "p256", "p384"])
def test_a_signature_of_a_trusted_key_verifies(key_type: str, hash_name: str) -> None:
    result = verified(cms.build(PAYLOAD, signer(key_type), hash_name), key_type=key_type)
    assert (result.certificate, result.digest) == (certificate(key_type), hash_name)
    assert (result.notes, result.problems, result.found_by) == ((), (), "key id")


@pytest.mark.parametrize("key_type", ["rsa2048", "p256"])
@pytest.mark.parametrize("options", [PROFILE, ("-noattr", "-nocerts")])
def test_openssls_signature_verifies_by_key_id_and_by_issuer_and_serial(
    key_type: str, options: tuple[str, ...]
) -> None:
    result = verified(openssl_sign(pair(key_type), PAYLOAD, *options), key_type=key_type)
    assert result.notes == ()
    assert result.found_by == ("key id" if options == PROFILE else "issuer and serial number")


def test_embedded_certificates_verify_with_a_note() -> None:
    (note,) = verified(openssl_sign(pair(RSA), PAYLOAD, "-noattr")).notes
    assert note == "1 embedded certificates, which a loader does not need"


def test_trailing_bytes_verify_with_a_note() -> None:
    (note,) = verified(cms.build(PAYLOAD, signer(RSA)) + b"\0").notes
    assert note.startswith("1 bytes after the CMS message")


def test_several_signatures_verify_with_a_note_when_one_is_trusted(tmp_path: Path) -> None:
    result = verified(both(tmp_path, *PROFILE))
    assert result.certificate == certificate(RSA)
    assert result.notes == ("2 signatures in one message; one trusted key suffices",)


@pytest.mark.parametrize("digest", ["sha1", "sha224"])
def test_a_weak_digest_verifies_with_a_note(digest: str) -> None:
    (note,) = verified(openssl_sign(pair(RSA), PAYLOAD, *PROFILE, "-md", digest)).notes
    assert note.startswith(f"digest {digest}")


def test_an_ecdsa_algorithm_of_another_digest_is_refused_although_kernels_take_it() -> None:
    value = signer("p256").sign(PAYLOAD, "sha256")
    der = cms.assemble(value, certificate("p256"), "ecdsa", "sha256")
    ecdsa_with_sha256 = bytes.fromhex("2a8648ce3d040302")
    ecdsa_with_sha384 = bytes.fromhex("2a8648ce3d040303")
    changed = der.replace(ecdsa_with_sha256, ecdsa_with_sha384)
    with pytest.raises(VerificationError, match="not ECDSA with sha256, the digest in use"):
        verified(changed, key_type="p256")
    assert verify_signature(changed, PAYLOAD, [certificate("p256")], as_kernel=True)


def test_a_list_of_digests_without_the_one_used_is_refused_although_kernels_take_it() -> None:
    sha256, sha384 = bytes.fromhex("608648016503040201"), bytes.fromhex("608648016503040202")
    der = cms.build(PAYLOAD, signer(RSA)).replace(sha256, sha384, 1)
    with pytest.raises(VerificationError, match="announces the digests sha384 and uses sha256"):
        verified(der)
    assert verify_signature(der, PAYLOAD, [certificate(RSA)], as_kernel=True)


def test_a_doubtful_certificate_verifies_and_its_problems_stand_apart(tmp_path: Path) -> None:
    made = issued(tmp_path, "plain")
    trusted = [Certificate.from_der(made.certificate_der)]
    result = verify_signature(openssl_sign(made, PAYLOAD, *PROFILE), PAYLOAD, trusted)
    assert result.problems == ("no keyUsage: it should say digitalSignature",)
    assert result.notes == ()


def test_an_empty_signature_is_ebadmsg() -> None:
    error = refused(b"")
    assert error.errno == errno.EBADMSG
    assert error.hint == "-EINVAL on 7.3, 7.3+bpf-keyring"


def test_a_signature_of_more_than_8192_bytes_is_einval() -> None:
    der = cms.build(PAYLOAD, signer(RSA))
    assert verified(der + bytes(8192 - len(der)))
    assert refused(der + bytes(8193 - len(der))).errno == errno.EINVAL


@pytest.mark.parametrize(
    "damage",
    [
        lambda der: b"\x31" + der[1:],
        lambda der: der[:-1],
        lambda der: der[-256:],
        lambda _: b"junk" * 75,
    ],
    ids=["first byte", "truncated", "raw signature", "junk"],
)
def test_what_cannot_be_parsed_is_ebadmsg(damage: Callable[[bytes], bytes]) -> None:
    assert refused(damage(cms.build(PAYLOAD, signer(RSA)))).errno == errno.EBADMSG


def test_embedded_content_is_ebadmsg() -> None:
    der = openssl_sign(pair(RSA), PAYLOAD, "-noattr", "-nodetach")
    assert refused(der).errno == errno.EBADMSG


def test_an_unreadable_embedded_certificate_is_ebadmsg() -> None:
    message = cms.parse(cms.build(PAYLOAD, signer(RSA)))
    with pytest.raises(Pkcs7Error) as caught:
        check_pkcs7(replace(message, certificates=(b"junk",)), PAYLOAD, find_in([]))
    assert caught.value.errno == errno.EBADMSG


def test_signed_attributes_are_ekeyrejected() -> None:
    error = refused(openssl_sign(pair(RSA), PAYLOAD))
    assert error.errno == errno.EKEYREJECTED
    assert "-noattr" in error.hint


def test_rsa_pss_is_enopkg() -> None:
    der = openssl_sign(pair(RSA), PAYLOAD, *PROFILE, "-keyopt", "rsa_padding_mode:pss")
    assert refused(der).errno == errno.ENOPKG


@pytest.mark.parametrize(
    ("digest", "hint"), [("md5", ""), ("sha3-256", "only 6.18, 6.19, 7.0 have sha3-256")]
)
def test_a_digest_that_kernels_lack_is_enopkg_and_says_which_have_it(
    digest: str, hint: str
) -> None:
    error = refused(openssl_sign(pair(RSA), PAYLOAD, *PROFILE, "-md", digest))
    assert (error.errno, error.hint) == (errno.ENOPKG, hint)


def test_a_kernel_with_more_digests_takes_them() -> None:
    message = cms.parse(openssl_sign(pair(RSA), PAYLOAD, *PROFILE, "-md", "sha3-256"))
    trusted = check_pkcs7(message, PAYLOAD, find_in([certificate(RSA)]), {"sha3-256"})
    assert trusted.signer == certificate(RSA)


@pytest.mark.parametrize("options", [PROFILE, ("-noattr", "-nocerts"), ("-noattr",)])
def test_the_signature_of_an_unknown_key_is_enokey(options: tuple[str, ...]) -> None:
    assert refused(openssl_sign(pair("rsa4096"), PAYLOAD, *options)).errno == errno.ENOKEY


def test_no_trusted_certificate_at_all_is_enokey() -> None:
    with pytest.raises(Pkcs7Error, match="-ENOKEY: no trusted key for the signer with key id"):
        verify_signature(cms.build(PAYLOAD, signer(RSA)), PAYLOAD, [])


@pytest.mark.parametrize("payload", [b"", PAYLOAD[:-1], PAYLOAD + b"\0", b"\1" + PAYLOAD[1:]])
def test_another_payload_is_ekeyrejected(payload: bytes) -> None:
    assert refused(cms.build(PAYLOAD, signer(RSA)), payload).errno == errno.EKEYREJECTED


def test_a_changed_signature_value_is_ekeyrejected() -> None:
    der = cms.build(PAYLOAD, signer(RSA))
    assert refused(der[:-1] + bytes([der[-1] ^ 1])).errno == errno.EKEYREJECTED


def test_an_embedded_key_whose_signature_is_bad_is_ekeyrejected_even_if_unknown() -> None:
    der = openssl_sign(pair("rsa4096"), PAYLOAD, "-noattr")
    assert refused(der, PAYLOAD[1:]).errno == errno.EKEYREJECTED


def test_a_bad_signature_of_a_known_key_counts_after_a_good_one(tmp_path: Path) -> None:
    message = cms.parse(both(tmp_path, *PROFILE))
    good, other = sorted(message.signer_infos, key=lambda info: info.algorithm, reverse=True)
    damaged = replace(message, signer_infos=(good, replace(other, signature=b"damaged")))
    with pytest.raises(Pkcs7Error) as caught:
        check_pkcs7(damaged, PAYLOAD, find_in([certificate(RSA), certificate("p256")]))
    assert caught.value.errno == errno.EKEYREJECTED
    assert check_pkcs7(damaged, PAYLOAD, find_in([certificate(RSA)])).info == good


def test_a_signature_of_another_kind_than_the_key_is_ekeyrejected() -> None:
    value = signer("p256").sign(PAYLOAD, "sha256")
    assert refused(cms.assemble(value, certificate(RSA), "ecdsa", "sha256")).errno == (
        errno.EKEYREJECTED
    )


@pytest.mark.parametrize(
    ("version", "info_version", "expected"),
    [(4, 3, errno.EINVAL), (3, 2, errno.EINVAL), (3, 1, errno.EBADMSG), (1, 3, errno.EBADMSG)],
)
def test_versions_must_be_1_or_3_and_agree(version: int, info_version: int, expected: int) -> None:
    message = cms.parse(cms.build(PAYLOAD, signer(RSA)))
    infos = (replace(message.signer_infos[0], version=info_version),)
    with pytest.raises(Pkcs7Error) as caught:
        check_pkcs7(replace(message, version=version, signer_infos=infos), PAYLOAD, find_in([]))
    assert caught.value.errno == expected


def test_a_signer_named_otherwise_than_its_version_says_is_not_found() -> None:
    message = cms.parse(cms.build(PAYLOAD, signer(RSA)))
    infos = (replace(message.signer_infos[0], version=1),)
    with pytest.raises(Pkcs7Error, match="does not name") as caught:
        check_pkcs7(
            replace(message, version=1, signer_infos=infos), PAYLOAD, find_in([certificate(RSA)])
        )
    assert caught.value.errno == errno.ENOKEY


def test_a_message_without_signatures_or_with_another_content_type_is_einval() -> None:
    message = cms.parse(cms.build(PAYLOAD, signer(RSA)))
    for changed in (replace(message, signer_infos=()), replace(message, content_type="1.2.3")):
        with pytest.raises(Pkcs7Error) as caught:
            check_pkcs7(changed, PAYLOAD, find_in([certificate(RSA)]))
        assert caught.value.errno == errno.EINVAL


def test_signed_attributes_on_some_signatures_only_are_einval(tmp_path: Path) -> None:
    message = cms.parse(both(tmp_path, *PROFILE))
    first, second = message.signer_infos
    mixed = replace(message, signer_infos=(first, replace(second, signed_attributes=b"")))
    with pytest.raises(Pkcs7Error) as caught:
        check_pkcs7(mixed, PAYLOAD, find_in([certificate(RSA)]))
    assert caught.value.errno == errno.EINVAL


def test_an_embedded_certificate_that_a_trusted_key_issued_verifies_with_a_note(
    tmp_path: Path,
) -> None:
    root = Certificate.from_der(issued(tmp_path, "root").certificate_der)
    issued(tmp_path, "middle", by="root")
    leaf = issued(tmp_path, "leaf", by="middle")
    chain = ("-noattr", "-certfile", tmp_path / "middle.pem")
    der = openssl_sign(leaf, PAYLOAD, *chain)
    result = verify_signature(der, PAYLOAD, [root])
    assert result.certificate.subject == "CN=leaf"
    assert "the signer is trusted because CN=root vouches for its certificate" in result.notes
    with pytest.raises(Pkcs7Error) as caught:  # the chain lacks its middle
        verify_signature(openssl_sign(leaf, PAYLOAD, "-noattr"), PAYLOAD, [root])
    assert caught.value.errno == errno.ENOKEY


def test_an_embedded_certificate_that_only_claims_its_issuer_is_ekeyrejected(
    tmp_path: Path,
) -> None:
    root = Certificate.from_der(issued(tmp_path, "root").certificate_der)
    leaf = issued(tmp_path, "leaf", by="root")
    forged = leaf.certificate_der[:-1] + bytes([leaf.certificate_der[-1] ^ 1])
    message = cms.parse(openssl_sign(leaf, PAYLOAD, "-noattr"))
    with pytest.raises(Pkcs7Error) as caught:
        check_pkcs7(replace(message, certificates=(forged,)), PAYLOAD, find_in([root]))
    assert caught.value.errno == errno.EKEYREJECTED


def test_a_known_key_is_reported_by_its_own_certificate_not_by_an_embedded_copy(
    tmp_path: Path,
) -> None:
    own = issued(tmp_path, "own")
    copy = own.certificate_der[:-1] + bytes([own.certificate_der[-1] ^ 1])
    message = cms.parse(openssl_sign(own, PAYLOAD, "-noattr"))
    trusted = Certificate.from_der(own.certificate_der)
    found = check_pkcs7(replace(message, certificates=(copy,)), PAYLOAD, find_in([trusted]))
    assert found.signer == trusted


def test_a_lookup_may_refuse_with_an_errno_of_its_own() -> None:
    def revoked(_: KeyId) -> Certificate | None:
        raise Pkcs7Error(errno.EKEYREVOKED, "the keyring is revoked")

    with pytest.raises(Pkcs7Error, match="-EKEYREVOKED: the keyring is revoked"):
        check_pkcs7(cms.parse(cms.build(PAYLOAD, signer(RSA))), PAYLOAD, revoked)


@pytest.mark.parametrize("key_type", ["rsa2048", "p256"])
def test_a_signature_cut_at_any_offset_does_not_verify(key_type: str) -> None:
    der = cms.build(PAYLOAD, signer(key_type))
    for end in range(len(der)):
        with pytest.raises(VerificationError):
            verified(der[:end], key_type=key_type)


@pytest.mark.parametrize("key_type", ["rsa2048", "p256"])
def test_no_single_bit_of_a_message_may_change_unnoticed(key_type: str) -> None:
    der = cms.build(PAYLOAD, signer(key_type))
    for position in range(len(der) * 8):
        changed = bytearray(der)
        changed[position // 8] ^= 1 << position % 8
        try:
            # Kernels do not look at the list of digests, nor at which ECDSA is named.
            assert verified(bytes(changed), key_type=key_type).notes
        except VerificationError:
            continue


def test_a_damaged_payload_does_not_verify() -> None:
    der = cms.build(PAYLOAD, signer("p256"))
    for payload in flips(PAYLOAD, 300):
        with pytest.raises(Pkcs7Error):
            verified(der, payload, key_type="p256")


def test_a_damaged_message_with_certificates_verifies_or_is_refused() -> None:
    for der in flips(openssl_sign(pair(RSA), PAYLOAD, "-noattr"), 1000):
        try:
            assert verified(der).certificate == certificate(RSA)
        except VerificationError:
            continue
