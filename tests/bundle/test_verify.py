"""What a verified loader needs beside a signature that verifies; the command is in tests/cli."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bpfseal.bundle.downgrade import DowngradeTrapError
from bpfseal.bundle.layout import decode, encode
from bpfseal.bundle.model import Bundle, Signature, SignedLoader
from bpfseal.bundle.sign import sign_bundle, sign_loader
from bpfseal.bundle.verify import LoaderVerification, verify_loader
from bpfseal.errors import InputError, UsageError, VerificationError
from bpfseal.loader.model import Loader
from bpfseal.release import RELEASES
from bpfseal.scheme import SIGNED_SCHEMES
from bpfseal.signing import cms, keygen
from bpfseal.signing.certificate import Certificate

from .verifying import certificate, openssl, signature_over, signed, signed_over, signer, tiny

UNSIGNED = tiny("unsigned")


def verified(loader: SignedLoader) -> LoaderVerification:
    return verify_loader(loader, [certificate()])


def refused(loader: SignedLoader, match: str) -> VerificationError:
    with pytest.raises(VerificationError, match=match) as caught:
        verified(loader)
    return caught.value


@pytest.mark.parametrize("scheme", SIGNED_SCHEMES)
def test_a_loader_of_each_scheme_verifies_with_what_the_signature_covers(scheme: str) -> None:
    loader = tiny(scheme)
    result = verified(sign_loader(SignedLoader(loader), signer()))
    assert result.payload == loader.scheme.signed_parts
    assert [found.certificate for found in result.signatures] == [certificate()]


def test_a_loader_without_a_check_does_not_verify_whatever_its_scheme_claims() -> None:
    for scheme in ("kfunc", "inline", "inline-original"):
        loader = replace(UNSIGNED, scheme_name=scheme, btf=tiny(scheme).btf)
        error = refused(signed(loader), "carry no digest of the metadata")
        assert isinstance(error, DowngradeTrapError)


def test_metadata_that_the_instructions_do_not_expect_is_named_with_the_errno_of_the_run() -> None:
    for scheme, name in (("kfunc", "EBADMSG"), ("inline", "EINVAL"), ("inline-original", "EINVAL")):
        changed = replace(tiny(scheme), metadata=b"other data")
        refused(signed(changed), f"expect .*: -{name} at run time")


def test_another_loader_btf_does_not_verify() -> None:
    btf = tiny("kfunc").btf.replace(b"bpf_loader_verify_metadata", b"bpf_loader_verify_anything")
    refused(signed(replace(tiny("kfunc"), btf=btf)), "is not the one of scheme kfunc")


def test_a_scheme_without_a_signature_never_verifies() -> None:
    # Its payload is empty, and anyone may have a signature over nothing.
    over_nothing = Signature(cms.build(b"", signer()), certificate().der)
    refused(SignedLoader(UNSIGNED, (over_nothing,)), "a signature covers nothing")


def test_a_scheme_without_a_signature_is_not_signed() -> None:
    with pytest.raises(UsageError, match="has no signature"):
        sign_loader(SignedLoader(UNSIGNED), signer())


def test_a_loader_under_the_name_of_another_scheme_does_not_verify() -> None:
    # The scheme is in the config, which no signature covers.
    for scheme in SIGNED_SCHEMES:
        for other in SIGNED_SCHEMES:
            if other != scheme:
                renamed = replace(tiny(scheme), scheme_name=other)
                assert not accepted(replace(signed(tiny(scheme)), loader=renamed))


def test_only_the_schemes_asked_for_are_signed() -> None:
    bundle = Bundle("x", (SignedLoader(tiny("kfunc")), SignedLoader(UNSIGNED)))
    result = sign_bundle(bundle, signer(), schemes=["kfunc"])
    assert [len(variant.signatures) for variant in result.variants] == [1, 0]


def test_one_trusted_signature_is_enough_and_the_others_are_reported() -> None:
    loader = tiny("inline")
    both = tuple(signature_over(loader, ("insns",), by) for by in ("somebody", "loader signing"))
    result = verified(SignedLoader(loader, both))
    assert len(result.signatures) == 1
    assert [failure[:7] for failure in result.failures] == ["-ENOKEY"]


def test_which_kernels_load_it_and_who_checks_the_metadata_there_is_said() -> None:
    result = verified(signed(tiny("loadtime")))
    by = {each.release.name: each.checked_by for each in result.admissions}
    assert [name for name, checked_by in by.items() if checked_by] == ["7.3", "7.3+bpf-keyring"]
    assert set(by) == set(RELEASES)


def test_a_check_that_does_not_ask_for_an_exclusive_map_is_a_warning() -> None:
    (warning,) = verified(signed(tiny("inline-original"))).warnings
    assert warning.startswith("the loader does not ask whether the map is exclusive")
    assert verified(signed(tiny("inline"))).warnings == ()


def test_a_digest_that_some_kernels_lack_is_a_warning_that_names_them() -> None:
    loader = tiny("inline-original")
    sha512 = SignedLoader(loader, (signature_over(loader, ("insns",), hash_name="sha512"),))
    some, none = verified(sha512).warnings[-2:]
    assert some.startswith("does not always load on kfunc, 7.2: -ENOPKG: ")
    assert none.startswith("does not load on 7.1: -ENOPKG: ")


def test_the_validity_of_the_certificate_is_a_problem_of_the_certificate_alone() -> None:
    late = datetime(2100, 1, 1, tzinfo=UTC)
    result = verify_loader(signed(tiny("inline")), [certificate()], at=late)
    (problem,) = result.signatures[0].problems
    assert problem.startswith("expired on ")


# Every single-bit flip, exhaustively


def flips(data: bytes) -> Iterator[bytes]:
    for position in range(len(data)):
        for bit in range(8):
            yield data[:position] + bytes([data[position] ^ 1 << bit]) + data[position + 1 :]


def accepted(loader: SignedLoader, trusted: Certificate | None = None) -> bool:
    try:
        verify_loader(loader, [trusted or certificate()])
    except VerificationError:
        return False
    return True


@pytest.mark.parametrize("part", ["insns", "btf", "metadata"])
@pytest.mark.parametrize("scheme", ["kfunc", "inline", "loadtime"])
def test_no_bit_of_a_loader_can_be_flipped(scheme: str, part: str) -> None:
    good = signed(tiny(scheme))
    data: bytes = getattr(good.loader, part)
    wrong = [
        flipped
        for flipped in flips(data)
        if accepted(replace(good, loader=with_part(good.loader, part, flipped)))
    ]
    assert wrong == []
    assert accepted(good)


def with_part(loader: Loader, part: str, data: bytes) -> Loader:
    changes: dict[str, Any] = {part: data}
    return replace(loader, **changes)


@pytest.mark.parametrize("key_type", ["rsa2048", "p256"])
def test_no_bit_of_a_signature_can_be_flipped(key_type: str) -> None:
    key = signer("flipped", key_type)
    good = sign_loader(SignedLoader(tiny("loadtime")), key)
    (signature,) = good.signatures
    wrong = [
        explained(signature.cms, flipped)
        for flipped in flips(signature.cms)
        if accepted(replace(good, signatures=(replace(signature, cms=flipped),)), key.certificate)
    ]
    assert wrong == []
    assert accepted(good, key.certificate)


def explained(good: bytes, flipped: bytes) -> str:
    position = next(at for at, byte in enumerate(good) if byte != flipped[at])
    return f"byte {position}: {good[position]:#x} to {flipped[position]:#x}"


def test_no_bit_of_the_certificate_that_a_bundle_carries_can_be_flipped() -> None:
    files = encode(Bundle("tiny", (signed(tiny("inline")),)))
    path = f"blobs/sha256/{hashlib.sha256(certificate().der).hexdigest()}"
    for flipped in flips(files[path]):
        with pytest.raises(InputError, match="content does not match"):
            decode({**files, path: flipped}, "tiny")


def test_the_certificate_that_a_bundle_carries_changes_no_verdict() -> None:
    good = signed(tiny("inline"))
    bad = replace(good, loader=replace(good.loader, metadata=b"other data"))
    for other in (b"", b"junk", certificate("somebody").der):
        replaced = tuple(replace(each, certificate=other) for each in good.signatures)
        assert verified(replace(good, signatures=replaced)) == verified(good)
        assert not accepted(replace(bad, signatures=replaced))
    foreign = SignedLoader(good.loader, (signature_over(good.loader, ("insns",), "somebody"),))
    assert not accepted(foreign)


def test_a_trusted_certificate_is_the_only_one_that_counts() -> None:
    with pytest.raises(VerificationError, match="ENOKEY"):
        verify_loader(signed(tiny("inline")), [])
    trusted: list[Certificate] = [certificate("somebody"), certificate()]
    assert verify_loader(signed(tiny("inline")), trusted).signatures[0].certificate == trusted[1]


def test_a_signature_over_more_or_other_parts_says_what_it_covers() -> None:
    loader = tiny("inline")
    error = refused(signed_over(loader, ("insns", "metadata")), "EKEYREJECTED")
    assert error.hint == (
        "it is a signature over instructions || metadata, not what scheme inline needs"
    )


@pytest.mark.parametrize("options", [("-keyid",), ()], ids=["key id", "issuer and serial number"])
def test_openssls_and_sign_files_signatures_verify(
    options: tuple[str, ...], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    # The kernel's sign-file names the signer by issuer and serial number, as openssl does.
    loader = tiny("loadtime")
    pair = keygen.generate("rsa2048", "elsewhere")
    for name, data in (
        ("key", pair.private_key_pem),
        ("cert", pair.certificate_pem),
        ("payload", loader.insns + loader.metadata),
    ):
        (tmp_path / name).write_bytes(data)
    made = openssl(
        *("cms", "-sign", "-binary", "-noattr", "-nocerts", *options, "-outform", "DER"),
        *("-in", tmp_path / "payload", "-inkey", tmp_path / "key", "-signer", tmp_path / "cert"),
    )
    trusted = [Certificate.from_der(pair.certificate_der)]
    (found,) = verify_loader(SignedLoader(loader, (Signature(made, b""),)), trusted).signatures
    assert found.found_by == request.node.callspec.id
