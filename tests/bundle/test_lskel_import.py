"""A light skeleton becomes a bundle that says what the object's own bundle says."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from bpfseal.bpf.insn import ByteOrder
from bpfseal.bpf.uapi import MapType
from bpfseal.bundle.lskel_import import import_header, verify_import
from bpfseal.bundle.model import Bundle, SignedLoader
from bpfseal.bundle.sign import sign_loader
from bpfseal.bundle.store import pack, unpack
from bpfseal.errors import BpfsealError, InputError, VerificationError
from bpfseal.loader import generate
from bpfseal.loader.model import Loader, ProgramEntry
from bpfseal.object import read_object
from bpfseal.scheme import SCHEMES, SIGNED_SCHEMES
from bpfseal.signing.keygen import generate as generate_key
from bpfseal.signing.signer import Signer, load_signer
from support.fuzz import mutations
from support.lskel_writer import header_of
from support.object_writer import ObjectWriter
from support.samples import everything

EXAMPLES = Path(__file__).parents[2] / "examples"
OBJECTS = ("exectrace", "xdpcount")


@cache
def signer() -> Signer:
    key = generate_key("p256", "test")
    return load_signer(key.private_key_pem, key.certificate_pem)


@cache
def signed(scheme: str, name: str = "exectrace") -> SignedLoader:
    obj = read_object((EXAMPLES / f"{name}.bpf.o").read_bytes(), f"{name}.bpf.o")
    loader = SignedLoader(generate(obj, scheme))
    return sign_loader(loader, signer()) if loader.loader.scheme.signed_parts else loader


def imported(text: str) -> SignedLoader:
    (variant,) = import_header(text.encode(), "tool.lskel.h").variants
    return variant


def without_sections(loader: Loader) -> Loader:
    """The header does not tell the names of sections."""
    programs = tuple(replace(entry, section="") for entry in loader.programs)
    return replace(loader, programs=programs)


@pytest.mark.parametrize("name", OBJECTS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_everything_but_section_names_comes_back(name: str, scheme: str) -> None:
    variant = signed(scheme, name)
    back = imported(header_of(variant))
    assert without_sections(back.loader) == without_sections(variant.loader)
    assert [entry.cms for entry in back.signatures] == [entry.cms for entry in variant.signatures]
    assert [entry.certificate for entry in back.signatures] == [b""] * len(variant.signatures)


@pytest.mark.parametrize("byteorder", ["little", "big"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_object_with_everything_comes_back(scheme: str, byteorder: ByteOrder) -> None:
    loader = generate(everything(byteorder).read(), scheme)
    variant = SignedLoader(loader)
    if loader.scheme.signed_parts:
        variant = sign_loader(variant, signer())
    back = imported(header_of(variant)).loader
    assert without_sections(back) == without_sections(loader)


@pytest.mark.parametrize(
    ("section", "tracepoint", "told"),
    [
        ("tp_btf/sched_switch", "", "tp_btf/sched_switch"),
        ("lsm.s/file_open", "", "lsm.s/file_open"),
        ("raw_tp/sched_switch", "sched_switch", "raw_tracepoint/sched_switch"),
        ("xdp", "", "xdp"),
        ("socket", "", "socket"),
        ("kprobe/do_unlinkat", "", ""),
        ("tp/syscalls/sys_enter_openat", "", ""),
    ],
)
def test_sections_are_told_where_the_attributes_leave_no_choice(
    section: str, tracepoint: str, told: str
) -> None:
    writer = ObjectWriter()
    writer.add_program(section, "main")
    variant = SignedLoader(generate(writer.read(), "unsigned"))
    (program,) = imported(header_of(variant, tracepoints={"main": tracepoint})).loader.programs
    assert isinstance(program, ProgramEntry)
    assert program.section == told


@pytest.mark.parametrize("scheme", SIGNED_SCHEMES)
def test_the_scheme_of_an_unsigned_header_is_told_by_its_instructions(scheme: str) -> None:
    bare = SignedLoader(signed(scheme).loader)
    assert imported(header_of(bare)).loader.scheme_name == scheme


def test_an_imported_bundle_can_be_stored() -> None:
    bundle = import_header(header_of(signed("kfunc")).encode(), "tool.lskel.h")
    assert unpack(pack(bundle), "a") == bundle


# What is checked


@pytest.mark.parametrize("scheme", SIGNED_SCHEMES)
def test_a_certificate_verifies_the_signature_and_is_kept(scheme: str) -> None:
    certificate = signer().certificate
    bundle = import_header(header_of(signed(scheme)).encode(), "tool.lskel.h")
    verified, verification = verify_import(bundle, [certificate])
    assert verification.signatures[0].certificate.der == certificate.der
    assert verified.variants[0].signatures[0].certificate == certificate.der


def test_a_signature_of_other_bytes_does_not_verify() -> None:
    text = header_of(signed("loadtime"), replaced={"opts_sig": signed("inline").signatures[0].cms})
    bundle = import_header(text.encode(), "tool.lskel.h")
    with pytest.raises(VerificationError):
        verify_import(bundle, [signer().certificate])


def test_a_loadtime_loader_signed_like_an_inline_one_does_not_verify() -> None:
    """The downgrade trap: nobody would check its metadata on kernels before 7.3."""
    from bpfseal.signing import cms

    loader = signed("loadtime").loader
    trap = cms.build(loader.insns, signer(), "sha256")
    text = header_of(signed("loadtime"), replaced={"opts_sig": trap})
    bundle = import_header(text.encode(), "tool.lskel.h")
    with pytest.raises(VerificationError):
        verify_import(bundle, [signer().certificate])


def test_an_unsigned_header_does_not_verify() -> None:
    bundle = import_header(header_of(signed("unsigned")).encode(), "tool.lskel.h")
    with pytest.raises(VerificationError, match="not signed"):
        verify_import(bundle, [signer().certificate])


def refused(variant: SignedLoader, **replaced: bytes) -> BpfsealError:
    text = header_of(variant, replaced={name.replace("__", " "): v for name, v in replaced.items()})
    with pytest.raises((InputError, VerificationError)) as caught:
        import_header(text.encode(), "tool.lskel.h")
    assert caught.value.where.startswith("tool.lskel.h")
    return caught.value


def test_the_exclusive_hash_must_be_that_of_the_instructions() -> None:
    error = refused(signed("kfunc"), opts_excl_hash=bytes(32))
    assert isinstance(error, VerificationError)
    assert "opts_excl_hash is 0000" in str(error)


@pytest.mark.parametrize("scheme", ["kfunc", "inline", "inline-original"])
def test_the_metadata_must_be_what_the_instructions_check(scheme: str) -> None:
    changed = bytearray(signed(scheme).loader.metadata)
    changed[-1] ^= 1
    error = refused(signed(scheme), opts_data=bytes(changed))
    assert isinstance(error, VerificationError)
    assert "at run time" in str(error)


@pytest.mark.parametrize(
    ("replaced", "reason"),
    [
        ({"data__rodata": bytes(7) + b"\1"}, "sets rodata to another value"),
        ({"opts_sig": b"0\0"}, "CMS"),
        ({"opts_sig": b""}, "opts_sig has 0 bytes"),
        ({"opts_sig": bytes(70000)}, "opts_sig has 70000 bytes"),
        ({"opts_excl_hash": bytes(33)}, "opts_excl_hash has 33 bytes"),
        ({"opts_btf": b"another BTF"}, "the loader BTF"),
        ({"opts_other": b"x"}, "opts_other is unknown"),
        ({"opts_insn": b"\x95" + bytes(7)}, "does not begin like a loader"),
        ({"opts_insn": b"\xbf\x16" + bytes(5)}, "does not begin like a loader"),
        ({"opts_insn": b"\xbf\x16" + bytes(6)}, "no loader that a generator makes"),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(
    replaced: dict[str, bytes], reason: str
) -> None:
    assert reason in str(refused(signed("kfunc"), **replaced))


def test_a_signature_comes_with_the_exclusive_hash() -> None:
    error = refused(SignedLoader(signed("kfunc").loader), opts_excl_hash=bytes(32))
    assert "only one of opts_sig and opts_excl_hash" in str(error)


def test_the_struct_must_fit_the_loader() -> None:
    variant = signed("unsigned")
    loader = variant.loader
    for changed, reason in (
        (replace(loader, maps=loader.maps[:3]), "the loader makes 4 maps, the struct has 3"),
        (replace(loader, programs=loader.programs[:1]), "loads 2 programs, the struct has 1"),
        (
            replace(loader, programs=(replace(loader.programs[0], name="other"),) * 2),
            "at most 4096 different progs",
        ),
        (
            replace(
                loader,
                programs=(loader.programs[0], replace(loader.programs[1], name="on_exot")),
            ),
            "program on_exot: name",
        ),
    ):
        with pytest.raises((InputError, VerificationError), match=reason):
            imported(header_of(replace(variant, loader=changed)))


# Damage


@pytest.mark.parametrize("scheme", ["kfunc", "loadtime", "unsigned"])
def test_damage_is_read_or_refused_and_never_verifies(scheme: str) -> None:
    writer = ObjectWriter()
    writer.add_map("table", type=MapType.HASH, max_entries=9, key=1, value=1)
    writer.add_variable("limit", ".rodata", bytes(8))
    writer.add_program("raw_tp/sched_switch", "main")
    variant = SignedLoader(generate(writer.read(), scheme))
    if variant.loader.scheme.signed_parts:
        variant = sign_loader(variant, signer())
    intact = imported(header_of(variant))
    for damaged in mutations(header_of(variant).encode(), 1500, seed=len(scheme)):
        try:
            bundle = import_header(damaged, "damaged")
            verified, _ = verify_import(bundle, [signer().certificate])
        except BpfsealError:
            continue
        assert same_bytes(verified, intact)


def same_bytes(bundle: Bundle, intact: SignedLoader) -> bool:
    (variant,) = bundle.variants
    found, expected = variant.loader, intact.loader
    return (found.insns, found.metadata, found.btf) == (
        expected.insns,
        expected.metadata,
        expected.btf,
    )
