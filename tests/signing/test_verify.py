"""Each refusal is the answer of a real kernel to the same signature."""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bpfseal.errors import VerificationError
from bpfseal.release import NEWEST, RELEASES
from bpfseal.signing import cms, der, oids, pkcs7, pkcs7_parser
from bpfseal.signing.ber import RefusedError
from bpfseal.signing.certificate import Certificate
from bpfseal.signing.keygen import KeyPair
from bpfseal.signing.pkcs7 import Payload
from bpfseal.signing.verify import VerifiedSignature, verify_signature
from bpfseal.signing.x509 import ParsedCertificate
from support import cms_writer
from support.cms_writer import Key

from .support import PAYLOAD, certificate, flips, openssl, openssl_sign, pair, signer

A, B = cms_writer.key("A"), cms_writer.key("B")
DIGESTS = tuple(oids.DIGESTS)
PROFILE = ("-noattr", "-nocerts", "-keyid")
RSA = "rsa2048"


def verified(der: bytes, payload: bytes = PAYLOAD, key_type: str = RSA) -> VerifiedSignature:
    return verify_signature(der, payload, [certificate("p384"), certificate(key_type)])


def refused(der: bytes, payload: bytes = PAYLOAD) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
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


def by_a(*, certificates: Sequence[bytes] = (), **options: Any) -> bytes:
    """A message by the key A."""
    return cms_writer.message(
        cms_writer.signer_info(A, PAYLOAD, **options), certificates=certificates
    )


def refused_for(message: bytes, *keys: Key) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        verify_signature(message, PAYLOAD, [each.certificate for each in keys])
    return caught.value


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
    junk = der.sequence(der.integer(1))
    made = by_a(certificates=[junk])
    assert refused_for(made, A).errno == errno.EBADMSG


def test_signed_attributes_verify_with_a_note_where_they_are_right() -> None:
    attributes = cms_writer.signed_attributes(PAYLOAD)
    (note,) = verify_signature(by_a(attributes=attributes), PAYLOAD, [A.certificate]).notes
    assert note == "signed attributes, which a loader does not need"
    wrong = cms_writer.signed_attributes(PAYLOAD[1:])
    assert refused_for(by_a(attributes=wrong), A).errno == errno.EKEYREJECTED


def test_the_capabilities_of_s_mime_are_ekeyrejected() -> None:
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
    message = openssl_sign(pair(RSA), PAYLOAD, *PROFILE, "-md", "sha3-256")
    old = RELEASES["6.18"].crypto()
    assert verify_signature(message, PAYLOAD, [certificate(RSA)], old).digest == "sha3-256"


def test_a_signature_with_a_digest_that_the_kernel_lacks_is_passed_over() -> None:
    garbage = cms_writer.signer_info(A, PAYLOAD, digest="sha3-256", value=bytes(256))
    made = cms_writer.message(garbage, cms_writer.signer_info(B, PAYLOAD), digests=DIGESTS)
    keys = [A.certificate, B.certificate]
    assert verify_signature(made, PAYLOAD, keys).certificate == B.certificate
    with pytest.raises(RefusedError, match="-EKEYREJECTED"):
        verify_signature(made, PAYLOAD, keys, RELEASES["6.18"].crypto())


@pytest.mark.parametrize("options", [PROFILE, ("-noattr", "-nocerts"), ("-noattr",)])
def test_the_signature_of_an_unknown_key_is_enokey(options: tuple[str, ...]) -> None:
    assert refused(openssl_sign(pair("rsa4096"), PAYLOAD, *options)).errno == errno.ENOKEY


def test_no_trusted_certificate_at_all_is_enokey() -> None:
    with pytest.raises(RefusedError, match="-ENOKEY: no trusted key for the signer with key id"):
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


def test_a_bad_signature_of_a_known_key_counts_after_a_good_one() -> None:
    damaged = cms_writer.signer_info(B, PAYLOAD, value=bytes(256))
    made = cms_writer.message(cms_writer.signer_info(A, PAYLOAD), damaged)
    assert refused_for(made, A, B).errno == errno.EKEYREJECTED
    assert verify_signature(made, PAYLOAD, [A.certificate]).certificate == A.certificate


def test_a_signature_of_another_kind_than_the_key_is_ekeyrejected() -> None:
    value = signer("p256").sign(PAYLOAD, "sha256")
    assert refused(cms.assemble(value, certificate(RSA), "ecdsa", "sha256")).errno == (
        errno.EKEYREJECTED
    )


@pytest.mark.parametrize(
    ("version", "by_name", "expected"),
    [(4, False, errno.EINVAL), (2, True, errno.EINVAL), (3, True, errno.EBADMSG)],
)
def test_versions_must_be_1_or_3_and_agree(version: int, by_name: bool, expected: int) -> None:
    info = cms_writer.signer_info(A, PAYLOAD, is_by_name=by_name)
    assert refused_for(cms_writer.message(info, version=version), A).errno == expected


def test_a_signature_without_the_name_that_its_version_wants_bears_the_last_one() -> None:
    # The first names nobody; a later one inherits the name of the one before it.
    by_name = cms_writer.signer_info(A, PAYLOAD, is_by_name=True)
    version_3 = by_name.replace(b"\2\1\1", b"\2\1\3", 1)
    error = refused_for(cms_writer.message(version_3), A)
    assert (error.errno, error.reason) == (errno.EINVAL, "the signature does not name its key")
    foreign = cms_writer.signer_info(B, PAYLOAD)
    assert refused_for(cms_writer.message(foreign, version_3), A).errno == errno.ENOKEY


def test_a_message_without_signatures_at_its_end_is_einval() -> None:
    bare = der.sequence(
        der.integer(3),
        der.element(0x31, der.sequence(der.oid(oids.DIGESTS["sha256"]))),
        der.sequence(der.oid(oids.DATA)),
    )
    message = der.sequence(der.oid(oids.SIGNED_DATA), der.explicit(0, bare))
    assert refused_for(message, A).errno == errno.EINVAL


def test_an_empty_set_of_signatures_is_ebadmsg() -> None:
    assert refused_for(cms_writer.message(), A).errno == errno.EBADMSG


def test_a_message_of_another_content_type_is_einval() -> None:
    data, other = der.oid(oids.DATA), der.oid("1.2.840.113549.1.7.3")
    assert refused_for(by_a().replace(data, other), A).errno == errno.EINVAL


def test_signed_attributes_on_some_signatures_only_are_einval() -> None:
    attributes = cms_writer.signed_attributes(PAYLOAD)
    infos = [cms_writer.signer_info(A, PAYLOAD, attributes=each) for each in (attributes, None)]
    assert refused_for(cms_writer.message(*infos), A).errno == errno.EINVAL


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
    with pytest.raises(RefusedError) as caught:  # the chain lacks its middle
        verify_signature(openssl_sign(leaf, PAYLOAD, "-noattr"), PAYLOAD, [root])
    assert caught.value.errno == errno.ENOKEY


def test_an_embedded_certificate_that_only_claims_its_issuer_is_ekeyrejected(
    tmp_path: Path,
) -> None:
    root = Certificate.from_der(issued(tmp_path, "root").certificate_der)
    leaf = issued(tmp_path, "leaf", by="root")
    made = openssl_sign(leaf, PAYLOAD, "-noattr")
    last = leaf.certificate_der[-1:]
    end = made.index(leaf.certificate_der) + len(leaf.certificate_der)
    forged = made[: end - 1] + bytes([last[0] ^ 1]) + made[end:]
    with pytest.raises(RefusedError) as caught:
        verify_signature(forged, PAYLOAD, [root])
    assert caught.value.errno == errno.EKEYREJECTED


def test_an_embedded_certificate_whose_own_signature_is_bad_is_einval(tmp_path: Path) -> None:
    own = issued(tmp_path, "own")
    made = openssl_sign(own, PAYLOAD, "-noattr")
    end = made.index(own.certificate_der) + len(own.certificate_der)
    changed = made[: end - 1] + bytes([made[end - 1] ^ 1]) + made[end:]
    with pytest.raises(RefusedError, match="embedded certificate: its own signature"):
        verify_signature(changed, PAYLOAD, [Certificate.from_der(own.certificate_der)])


def test_a_lookup_may_refuse_with_an_errno_of_its_own() -> None:
    def revoked(_: bytes) -> ParsedCertificate | None:
        raise RefusedError(errno.EKEYREVOKED, "the keyring is revoked")

    message = pkcs7_parser.parse(by_a(), NEWEST)
    with pytest.raises(RefusedError, match="-EKEYREVOKED: the keyring is revoked"):
        pkcs7.check(message, Payload(PAYLOAD), revoked, NEWEST)


def test_a_payload_is_hashed_once_for_each_digest_however_many_sign() -> None:
    payload = CountingPayload(PAYLOAD)
    infos = [
        cms_writer.signer_info(key, PAYLOAD, digest=digest)
        for digest in ("sha256", "sha384")
        for key in (A, B) * 5
    ]
    made = cms_writer.message(*infos, digests=DIGESTS)
    assert verify_signature(made, payload, [A.certificate, B.certificate])
    assert payload.hashed == ["sha256", "sha384"]


class CountingPayload(Payload):
    """Notes which digests are computed."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.hashed: list[str] = []

    def compute(self, name: str) -> bytes:
        self.hashed.append(name)
        return super().compute(name)


@pytest.mark.parametrize(
    "in_ber",
    [
        lambda message: b"\x30\x80" + message[4:] + b"\0\0",
        lambda message: b"\x10" + message[1:],
        lambda message: message.replace(b"\x31\x0d\x30\x0b", b"\x30\x0d\x30\x0b", 1),
        lambda message: message.replace(b"\x31\x82", b"\x30\x82", 1),
    ],
    ids=["indefinite", "primitive tag", "list of digests", "list of signatures"],
)
def test_a_message_in_ber_is_refused_although_kernels_take_it(
    in_ber: Callable[[bytes], bytes],
) -> None:
    made = in_ber(by_a())
    assert made != by_a()
    assert verify_signature(made, PAYLOAD, [A.certificate], as_kernel=True)
    with pytest.raises(VerificationError, match="the CMS message is not in DER"):
        verify_signature(made, PAYLOAD, [A.certificate])


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
        with pytest.raises(RefusedError):
            verified(der, payload, key_type="p256")


def test_a_damaged_message_with_certificates_verifies_or_is_refused() -> None:
    for damaged in flips(openssl_sign(pair(RSA), PAYLOAD, "-noattr"), 1000):
        try:
            assert verified(damaged).certificate == certificate(RSA)
        except VerificationError:
            continue
