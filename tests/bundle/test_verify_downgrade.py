"""The downgrade trap: no tool of ours makes it, and verification never misses it."""

from __future__ import annotations

import errno
from dataclasses import replace
from typing import Any

import pytest

from bpfseal.bpf.insn import encode_insns, exit_insn, mov64_imm
from bpfseal.bundle.admission import LoaderFacts, admission, admissions
from bpfseal.bundle.coverage import PAYLOADS
from bpfseal.bundle.downgrade import DowngradeTrapError
from bpfseal.bundle.model import Signature, SignedLoader
from bpfseal.bundle.offline import prepare
from bpfseal.bundle.sign import sign_loader
from bpfseal.bundle.verify import verify_loader
from bpfseal.errors import VerificationError
from bpfseal.loader.model import Loader
from bpfseal.release import RELEASES
from bpfseal.release import Payload as Parts
from bpfseal.scheme import SIGNED_SCHEMES
from bpfseal.signing import der, mldsa, oids
from bpfseal.signing.pkcs7 import Payload
from support import cms_writer
from support.cms_writer import Key

from .verifying import (
    certificate,
    renamed,
    signature_over,
    signature_with,
    signed,
    signed_over,
    signer,
    tiny,
)

INSNS: Parts = ("insns",)
WITH_BTF: Parts = ("insns", "btf")
WITH_METADATA: Parts = ("insns", "metadata")
BEFORE_7_3 = "kfunc, 6.18, 6.19, 7.0, 7.1, 7.2"


def trapped(loader: SignedLoader, kernels: str = BEFORE_7_3) -> DowngradeTrapError:
    with pytest.raises(DowngradeTrapError) as caught:
        verify_loader(loader, [certificate()])
    assert str(caught.value).startswith("downgrade trap: ")
    assert f"nobody checks the metadata on {kernels} " in str(caught.value)
    return caught.value


def outcomes(loader: Loader, payload: Parts) -> dict[str, str]:
    """Return what each release makes of a loader: who checks the metadata, or the errno."""
    return {
        each.release.name: each.checked_by or each.text.partition(":")[0]
        for each in admissions(loader, payload)
    }


# What each release makes of each scheme


def test_a_kfunc_artifact_loads_on_the_kfunc_kernel_alone() -> None:
    refused = dict.fromkeys(RELEASES, "-EKEYREJECTED")
    assert outcomes(tiny("kfunc"), WITH_BTF) == {**refused, "kfunc": "kfunc"}


def test_a_loadtime_artifact_is_ekeyrejected_before_7_3() -> None:
    refused = dict.fromkeys(RELEASES, "-EKEYREJECTED")
    kernel = dict.fromkeys(("7.3", "7.3+bpf-keyring"), "kernel")
    assert outcomes(tiny("loadtime"), WITH_METADATA) == {**refused, **kernel}


def test_an_inline_original_artifact_loads_before_7_3_and_is_eacces_there() -> None:
    loads = dict.fromkeys(RELEASES, "loader")
    refused = dict.fromkeys(("7.3", "7.3+bpf-keyring"), "-EACCES")
    assert outcomes(tiny("inline-original"), INSNS) == {**loads, **refused}


def test_an_inline_artifact_loads_only_where_maps_say_whether_they_are_exclusive() -> None:
    found = {each.release.name: each for each in admissions(tiny("inline"), INSNS)}
    assert {name: each.loads for name, each in found.items()} == {
        "kfunc": "some",
        "6.18": "some",
        "6.19": "no",
        "7.0": "no",
        "7.1": "some",
        "7.2": "yes",
        "7.3": "no",
        "7.3+bpf-keyring": "no",
    }
    assert {each.errno for each in found.values()} == {0, errno.EACCES}
    assert "bpf_map.excl" in found["7.0"].reason


def test_the_kfunc_is_missed_by_every_released_kernel() -> None:
    # Signed over insns alone, which is what these kernels look at.
    assert outcomes(tiny("kfunc"), INSNS) == {
        **dict.fromkeys(RELEASES, "-EINVAL"),
        **dict.fromkeys(("7.3", "7.3+bpf-keyring"), "-EACCES"),
    }


@pytest.mark.parametrize("scheme", ["kfunc", "inline", "inline-original"])
def test_a_loader_with_a_check_never_runs_with_other_metadata(scheme: str) -> None:
    changed = replace(tiny(scheme), metadata=bytes(16))
    for payload in PAYLOADS:
        assert not {"nobody", "loader", "kfunc"} & set(outcomes(changed, payload).values())


@pytest.mark.parametrize(
    ("digest", "kernels"),
    [("sha384", {"7.1"}), ("sha3-256", {"kfunc", "7.1", "7.2", "7.3", "7.3+bpf-keyring"})],
)
def test_a_digest_that_a_kernel_lacks_is_enopkg_there(digest: str, kernels: set[str]) -> None:
    loader = tiny("inline-original")
    message = SignedLoader(loader, (signature_with(digest, loader.insns),))
    found = verify_loader(message, [certificate()], releases=RELEASES.values()).admissions
    lacking = {each.release.name for each in found if each.errno == errno.ENOPKG}
    # On 7.2 and in the series it depends on the build.
    assert {name for name in lacking if name in kernels} == kernels
    assert {each.loads for each in found if each.release.name in kernels} == {"no"}


@pytest.mark.skipif(not mldsa.available(), reason="this cryptography has no ML-DSA")
def test_an_algorithm_that_a_kernel_lacks_is_refused_there() -> None:
    loader = tiny("loadtime")
    key = signer("ml-dsa", "mldsa65")
    good = sign_loader(SignedLoader(loader), key)
    found = verify_loader(good, [key.certificate], releases=RELEASES.values()).admissions
    assert {each.release.name: each.loads for each in found if each.loads != "no"} == {
        "7.3+bpf-keyring": "some"
    }


# The trap


@pytest.mark.parametrize("scheme", ["loadtime", "unsigned"])
def test_a_loader_without_a_check_signed_over_its_instructions_alone_is_a_trap(
    scheme: str,
) -> None:
    error = trapped(signed_over(tiny(scheme), INSNS))
    assert "CN=loader signing signed the instructions alone" in str(error)
    assert error.payload == INSNS


def test_it_is_one_under_the_name_of_any_scheme() -> None:
    for scheme in SIGNED_SCHEMES:
        renamed = replace(tiny("loadtime"), scheme_name=scheme)
        trapped(signed_over(renamed, INSNS))


def test_it_is_one_beside_a_signature_that_is_right() -> None:
    trapped(signed_over(tiny("loadtime"), WITH_METADATA, INSNS))
    trapped(signed_over(tiny("loadtime"), INSNS, WITH_METADATA))


def test_it_is_one_whoever_made_it() -> None:
    # Some kernel may have the key in its keyring, whoever trusts it here.
    good = signed(tiny("loadtime"))
    foreign = signature_over(tiny("loadtime"), INSNS, "somebody")
    for trusted in ([certificate()], [certificate(), certificate("somebody")]):
        with pytest.raises(DowngradeTrapError, match="CN=somebody signed the instructions alone"):
            verify_loader(good.with_signature(foreign), trusted)


def test_another_good_signature_is_no_trap_whoever_made_it() -> None:
    loader = tiny("loadtime")
    twice = signed(loader).with_signature(
        signature_over(loader, loader.scheme.signed_parts, "somebody")
    )
    found = verify_loader(twice, [certificate()])
    assert (len(found.signatures), len(found.failures)) == (1, 1)


def test_a_digest_that_verify_does_not_take_does_not_hide_it() -> None:
    # A module in the kernels of 7.1 that were measured: others have it, or load the module.
    loader = tiny("loadtime")
    sha384 = SignedLoader(loader, (signature_over(loader, INSNS, hash_name="sha384"),))
    trapped(sha384)


def test_bytes_after_the_message_do_not_hide_it() -> None:
    loader = tiny("loadtime")
    made = signature_over(loader, INSNS)
    trapped(SignedLoader(loader, (replace(made, cms=made.cms + b"\0\0"),)))


def test_a_kfunc_loader_without_its_check_is_one_for_the_kfunc_kernel() -> None:
    bare = replace(tiny("loadtime"), scheme_name="kfunc", btf=tiny("kfunc").btf)
    trapped(signed(bare), "kfunc")


def test_a_check_that_is_not_at_its_place_does_not_count() -> None:
    loader = tiny("inline-original")
    moved = replace(loader, insns=encode_insns([mov64_imm(0, 0)]) + loader.insns)
    trapped(signed(moved))


def test_a_program_that_leaves_before_the_check_is_a_trap_on_every_kernel() -> None:
    bare = encode_insns([mov64_imm(0, 0), exit_insn()])
    trapped(signed(replace(tiny("inline"), insns=bare)), ", ".join(RELEASES))


@pytest.mark.parametrize(
    "metadata", [b"\xb7" + bytes(15), b"\x9f\xeb\x01\x00 BTF"], ids=["instructions", "BTF"]
)
def test_metadata_that_could_pass_for_instructions_or_btf_is_one(metadata: bytes) -> None:
    # A kernel before 7.3 would take the signature as one over a longer program, the kfunc kernel
    # also as one over the program and its BTF; either leaves the map to whoever loads it.
    loader = replace(tiny("loadtime"), metadata=metadata)
    error = trapped(signed(loader))
    assert "the metadata can be passed as more instructions or as BTF" in str(error)


def test_metadata_without_bytes_is_covered_by_nothing() -> None:
    trapped(signed(replace(tiny("loadtime"), metadata=b"")))


def test_generated_metadata_begins_with_zeros_which_are_no_instruction_and_no_btf() -> None:
    assert LoaderFacts.of(tiny("loadtime")).metadata_is_opaque


def test_with_kernels_named_the_others_do_not_matter() -> None:
    loader = signed_over(tiny("loadtime"), WITH_METADATA, INSNS)
    newest = [RELEASES["7.3"]]
    result = verify_loader(loader, [certificate()], releases=newest)
    assert [each.checked_by for each in result.admissions] == ["kernel"]
    assert "over the instructions alone" in result.failures[0]
    with pytest.raises(DowngradeTrapError):
        verify_loader(loader, [certificate()], releases=[RELEASES["7.2"]])


def test_every_combination_of_check_payload_and_release_is_refused_or_checked_or_a_trap() -> None:
    for release in RELEASES.values():
        for payload in PAYLOADS:
            for check in (None, "kfunc", "inline", "inline-original"):
                facts = LoaderFacts(check=check, metadata_matches=True, uses_map=True)
                found = admission(release, payload, facts)
                assert (found.loads == "no") == (found.checked_by is None)
                assert (found.loads == "yes") or found.errno
                unchecked = (
                    check is None
                    and "metadata" not in payload
                    and payload in release.payloads
                    and not release.covers_bound_maps
                )
                assert found.is_unchecked == unchecked


def hidden(kind: str) -> bytes:
    """A message with a signature over the instructions alone that a strict reader overlooks."""
    insns = tiny("loadtime").insns
    first, second = cms_writer.key("A"), cms_writer.key("B")
    trap = cms_writer.signer_info(second, insns)
    front: dict[str, dict[str, Any]] = {
        "sm3": {"digest_oid": oids.OTHER_DIGESTS["sm3"]},
        "streebog": {"digest_oid": oids.OTHER_DIGESTS["streebog512"]},
        "gost": {"algorithm_oid": oids.GOST_KEYS["gost2012-256"]},
        "ML-DSA": {"algorithm_oid": oids.MLDSA["mldsa65"]},
        "SHA-3": {"digest_oid": oids.DIGESTS["sha3-512"]},
    }
    plain = cms_writer.message(trap)
    if kind in front:
        by = cms_writer.key("C") if kind in ("gost", "ML-DSA") else first
        garbage = cms_writer.signer_info(by, insns, value=bytes(256), **front[kind])
        return cms_writer.message(garbage, trap)
    if kind == "indefinite length":
        return b"\x30\x80" + plain[4:] + b"\0\0"
    if kind == "parameters":
        return cms_writer.message(
            cms_writer.signer_info(second, insns, parameters=der.octets(b"x"))
        )
    if kind == "attributes":
        attributes = cms_writer.signed_attributes(insns)
        return cms_writer.message(cms_writer.signer_info(second, insns, attributes=attributes))
    if kind == "second key":
        whole = insns + tiny("loadtime").metadata
        return cms_writer.message(cms_writer.signer_info(first, whole, digest="sha512"), trap)
    leaf = cms_writer.key("leaf", by="A")
    info = cms_writer.signer_info(leaf, insns, is_by_name=True)
    return cms_writer.message(info, version=1, certificates=[leaf.certificate.der])


@pytest.mark.parametrize(
    "kind",
    [
        "sm3",
        "streebog",
        "gost",
        "ML-DSA",
        "SHA-3",
        "indefinite length",
        "parameters",
        "attributes",
        "second key",
        "embedded certificate",
    ],
)
def test_no_form_that_kernels_take_hides_it(kind: str) -> None:
    loader = tiny("loadtime")
    trusted = [cms_writer.key(name).certificate for name in ("A", "B")]
    good = cms_writer.message(
        cms_writer.signer_info(cms_writer.key("A"), loader.insns + loader.metadata)
    )
    assert verify_loader(SignedLoader(loader, (Signature(good, b""),)), trusted)
    for messages in ((hidden(kind),), (good, hidden(kind)), (hidden(kind), good)):
        signatures = tuple(Signature(cms, b"") for cms in messages)
        with pytest.raises(DowngradeTrapError):
            verify_loader(SignedLoader(loader, signatures), trusted)


def test_it_is_one_if_a_key_made_it_that_a_trusted_one_vouches_for() -> None:
    # Root may add such a key to .secondary, whatever verifies elsewhere.
    loader, leaf = tiny("loadtime"), cms_writer.key("leaf", by="A")
    trusted = [cms_writer.key("A").certificate, certificate()]
    info = cms_writer.signer_info(leaf, loader.insns)
    trap = Signature(cms_writer.message(info), leaf.certificate.der)
    good = signed(loader)
    assert verify_loader(good, trusted)
    with pytest.raises(DowngradeTrapError, match="CN=leaf signed the instructions alone"):
        verify_loader(good.with_signature(trap), trusted)


def test_it_is_one_however_many_certificates_lead_from_a_trusted_key_to_it() -> None:
    # Each link can be added to .secondary once the one above it is there.
    loader = tiny("loadtime")
    above, leaf = cms_writer.key("above", by="A"), cms_writer.key("leaf of above", by="above")
    trusted = [cms_writer.key("A").certificate]
    good = cms_writer.message(
        cms_writer.signer_info(cms_writer.key("A"), loader.insns + loader.metadata)
    )
    trap = cms_writer.message(cms_writer.signer_info(leaf, loader.insns))
    elsewhere = (leaf.certificate.der, above.certificate.der)
    signatures = (Signature(good, above.certificate.der), Signature(trap, leaf.certificate.der))
    with pytest.raises(DowngradeTrapError, match="CN=leaf of above signed the instructions alone"):
        verify_loader(SignedLoader(loader, signatures), trusted)
    signatures = (Signature(good, b""), Signature(trap, b""))
    with pytest.raises(DowngradeTrapError):
        verify_loader(SignedLoader(loader, signatures), trusted, enclosed=elsewhere)


@pytest.mark.parametrize("enclosed", ["none", "decoy", "another issuer", "intermediate left out"])
def test_no_certificate_that_comes_with_it_hides_it(enclosed: str) -> None:
    # It may be a trap for a kernel that has the key, in .secondary for example.
    loader = tiny("loadtime")
    leaf = cms_writer.key("leaf of above", by="above")  # which A has issued
    stranger = cms_writer.key("stranger")
    key_id = leaf.certificate.parsed.key_id
    certificates = {
        "none": b"",
        "decoy": cms_writer.certificate_for(
            stranger.private.public_key(), stranger.private, "decoy", key_id=key_id
        ).der,
        "another issuer": cms_writer.certificate_for(
            leaf.private.public_key(), stranger.private, "leaf", issuer="stranger"
        ).der,
        "intermediate left out": leaf.certificate.der,
    }
    trusted = [cms_writer.key("A").certificate]
    whole = loader.insns + loader.metadata
    good = cms_writer.signer_info(cms_writer.key("A"), whole)
    trap = cms_writer.signer_info(leaf, loader.insns)
    der_of_it = certificates[enclosed]
    apart = (
        Signature(cms_writer.message(good), b""),
        Signature(cms_writer.message(trap), der_of_it),
    )
    inside = [der_of_it] if der_of_it else []
    together = (Signature(cms_writer.message(trap, good, certificates=inside), der_of_it),)
    for signatures in (apart, together):
        with pytest.raises(VerificationError, match=r"downgrade trap|what it covers cannot be"):
            verify_loader(SignedLoader(loader, signatures), trusted)


def test_what_is_signed_is_hashed_once_for_each_digest_and_message_of_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hashed: list[str] = []
    compute = Payload.compute

    def counting(payload: Payload, name: str) -> bytes:
        hashed.append(name)
        return compute(payload, name)

    monkeypatch.setattr(Payload, "compute", counting)
    loader, key = tiny("loadtime"), Key(None, certificate())
    value = signer().sign(loader.insns + loader.metadata, "sha256")
    info = cms_writer.signer_info(key, b"", value=value)
    many = Signature(cms_writer.message(*[info] * 20), certificate().der)
    assert verify_loader(SignedLoader(loader, (many, many, many)), [certificate()])
    # Instructions; instructions and metadata. The loader's BTF is empty here.
    assert hashed == ["sha256"] * 2


# No tool of ours makes it


def test_sign_and_prepare_refuse_a_loader_that_would_be_one() -> None:
    for scheme in ("inline", "inline-original", "kfunc"):
        bare = replace(tiny("loadtime"), scheme_name=scheme, btf=tiny(scheme).btf)
        for make in (lambda it: sign_loader(it, signer()), prepare):
            with pytest.raises(DowngradeTrapError, match="downgrade trap"):
                make(SignedLoader(bare))


def test_sign_refuses_to_add_to_one() -> None:
    with pytest.raises(DowngradeTrapError):
        sign_loader(signed_over(tiny("loadtime"), INSNS), signer("somebody"))


@pytest.mark.parametrize("enclosed", [b"", b"junk", "somebody else's"])
def test_sign_refuses_to_add_to_a_trap_whose_certificate_was_left_out(enclosed: Any) -> None:
    given = certificate("somebody").der if isinstance(enclosed, str) else enclosed
    trap = replace(signature_over(tiny("loadtime"), INSNS, "away"), certificate=given)
    with pytest.raises(VerificationError, match=r"signature 1 .* cannot be judged"):
        sign_loader(SignedLoader(tiny("loadtime"), (trap,)), signer())


def test_a_certificate_of_the_same_name_with_another_key_does_not_hide_it() -> None:
    trap = signature_over(tiny("loadtime"), INSNS, "away")
    key_id = certificate("away").require_subject_key_id()
    other = renamed(certificate("somebody"), key_id)
    assert other.parsed.is_named(key_id)
    with pytest.raises(VerificationError, match="cannot be judged"):
        sign_loader(
            SignedLoader(tiny("loadtime"), (replace(trap, certificate=other.der),)), signer()
        )


def test_sign_refuses_to_add_to_what_no_kernel_can_read() -> None:
    loader = SignedLoader(tiny("loadtime"), (Signature(b"junk", b"junk"),))
    with pytest.raises(VerificationError, match="no kernel takes it, -EBADMSG"):
        sign_loader(loader, signer())


def test_sign_adds_to_good_signatures_of_others() -> None:
    good = sign_loader(SignedLoader(tiny("loadtime")), signer("somebody"))
    assert len(sign_loader(good, signer()).signatures) == 2
