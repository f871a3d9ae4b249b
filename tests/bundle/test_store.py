from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest
from hypothesis import given

from bpfseal.bundle import store
from bpfseal.bundle.layout import encode
from bpfseal.bundle.model import Bundle, Signature, SignedLoader
from bpfseal.bundle.sign import sign_bundle
from bpfseal.bundle.verify import verify_loader
from bpfseal.errors import CapabilityError, InputError, UsageError
from bpfseal.loader import generate
from bpfseal.loader.model import Loader
from bpfseal.object import read_object
from bpfseal.scheme import SIGNED_SCHEMES
from support.files import EXAMPLE

from .support import BUNDLE, BUNDLES, LOADER, SIGNATURE, listing
from .verifying import signer, tiny


@given(BUNDLES)
def test_any_bundle_comes_back_from_its_packed_form(bundle: Bundle) -> None:
    assert store.unpack(store.pack(bundle), "x") == bundle


@given(BUNDLES)
def test_the_same_bundle_packs_to_the_same_bytes(bundle: Bundle) -> None:
    assert store.pack(bundle) == store.pack(store.unpack(store.pack(bundle), "x"))


def test_the_packed_form_never_changes() -> None:
    # A change here breaks the byte identity of every bundle there is: it takes a new media type.
    bundle = Bundle("execsnoop_bpf", (SignedLoader(LOADER, (SIGNATURE,), tool="bpfseal VERSION"),))
    digest = hashlib.sha256(store.pack(bundle)).hexdigest()
    assert digest == "e2c2c645572a4853c862f9f7be935a21fa9ad94f6a29fb398a9ca288963d66b5"


def test_the_packed_form_has_no_trace_of_time_owner_or_mode() -> None:
    with tarfile.open(fileobj=io.BytesIO(store.pack(BUNDLE))) as archive:
        facts = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode, m.type) for m in archive}
    assert facts == {(0, 0, 0, "", "", 0o644, tarfile.REGTYPE)}


def test_each_blob_lies_under_its_digest() -> None:
    with tarfile.open(fileobj=io.BytesIO(store.pack(BUNDLE))) as archive:
        blobs = [m for m in archive if m.name.startswith("blobs/sha256/")]
        for member in blobs:
            content = archive.extractfile(member)
            assert content is not None
            assert hashlib.sha256(content.read()).hexdigest() == member.name.rpartition("/")[2]
    assert len(blobs) == 7


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_an_archive_that_another_tar_makes_of_the_directory_form_is_refused(
    tmp_path: Path, form: int
) -> None:
    store.write_bundle(BUNDLE, f"{tmp_path}/unpacked/")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        archive.add(tmp_path / "unpacked", arcname=".")
    with pytest.raises(InputError):
        store.unpack(out.getvalue(), "x")


def test_a_path_that_ends_in_a_slash_is_written_as_a_directory(tmp_path: Path) -> None:
    store.write_bundle(BUNDLE, f"{tmp_path}/new/")
    assert listing(tmp_path / "new") == ["blobs", "index.json", "oci-layout"]
    assert store.read_bundle(tmp_path / "new") == BUNDLE


def test_a_path_that_is_an_empty_directory_is_written_as_a_directory(tmp_path: Path) -> None:
    store.write_bundle(BUNDLE, tmp_path)
    assert store.read_bundle(tmp_path) == BUNDLE


def test_any_other_path_is_written_as_a_file(tmp_path: Path) -> None:
    store.write_bundle(BUNDLE, tmp_path / "a.bpfseal")
    assert (tmp_path / "a.bpfseal").read_bytes() == store.pack(BUNDLE)
    assert store.read_bundle(tmp_path / "a.bpfseal") == BUNDLE


def test_the_directory_form_of_an_empty_bundle_comes_back(tmp_path: Path) -> None:
    store.write_bundle(Bundle("none", ()), f"{tmp_path}/new/")
    assert store.read_bundle(tmp_path / "new") == Bundle("none", ())


def test_a_bundle_directory_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    store.write_bundle(BUNDLE, f"{folder}/")
    unsigned = Bundle("other", (SignedLoader(LOADER),))
    store.write_bundle(unsigned, folder)
    assert store.read_bundle(folder) == unsigned
    assert listing(tmp_path) == ["bundle"]


def test_a_directory_that_holds_something_else_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match="holds something else"):
        store.write_bundle(BUNDLE, tmp_path)
    assert listing(tmp_path) == ["thesis.tex"]


def test_a_bundle_file_has_the_permissions_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        store.write_bundle(BUNDLE, tmp_path / "a.bpfseal")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a.bpfseal").stat().st_mode) == 0o640


@pytest.mark.parametrize(
    "loader",
    [
        Loader("kfunc", "x", b"7 bytes", b"", b"btf", (), ()),
        Loader("kfunc", "x", b"", b"", b"btf", (), ()),
        Loader("kfunc", "x", bytes(8), b"", b"", (), ()),
        Loader("loadtime", "x", bytes(8), b"", b"btf", (), ()),
        Loader("magic", "x", bytes(8), b"", b"btf", (), ()),
        Loader("kfunc", "x\x1b[2J", bytes(8), b"", b"btf", (), ()),
        Loader("kfunc", "x\ud800", bytes(8), b"", b"btf", (), ()),
        Loader("kfunc", "x" * 2000, bytes(8), b"", b"btf", (), ()),
        Loader("kfunc", "x", bytes(8_000_008), b"", b"btf", (), ()),
    ],
    ids=[
        "half a slot",
        "no insns",
        "no btf",
        "btf too much",
        "no scheme",
        "escape",
        "surrogate",
        "long name",
        "too many insns",
    ],
)
def test_what_no_reader_takes_is_not_written(loader: Loader, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        store.write_bundle(Bundle("x", (SignedLoader(loader),)), tmp_path / "a.bpfseal")
    assert listing(tmp_path) == []


def test_signers_that_share_a_certificate_share_its_blob() -> None:
    signatures = (Signature(b"one", b"cert"), Signature(b"two", b"cert"), Signature(b"three", b""))
    bundle = Bundle("x", (SignedLoader(LOADER, signatures),))
    assert store.unpack(store.pack(bundle), "x") == bundle


def test_blobs_that_are_equal_are_stored_once() -> None:
    obj = read_object(EXAMPLE.read_bytes(), EXAMPLE.name)
    variants = tuple(SignedLoader(generate(obj, name)) for name in SIGNED_SCHEMES)
    files = encode(Bundle("exectrace", variants))
    metadata = {variant.loader.metadata for variant in variants}
    # Metadata, configs, manifests: the schemes share the first and differ in the others.
    assert len(metadata) == 1
    blobs = len(variants) * len(("insns", "config", "manifest")) + len(("metadata", "btf"))
    assert len(files) == blobs + len(("index.json", "oci-layout"))


def test_several_signers_sign_one_variant() -> None:
    signers = [signer(name) for name in ("one", "two", "three")]
    bundle = Bundle("tiny", (SignedLoader(tiny("kfunc")),))
    for each in signers:
        bundle = sign_bundle(bundle, each, schemes=["kfunc"])
    again = store.unpack(store.pack(bundle), "x")
    assert again == bundle
    for each in signers:
        assert len(verify_loader(again.variants[0], [each.certificate]).signatures) == 1


def test_a_signature_changes_nothing_else_not_even_who_made_the_loader() -> None:
    made_before = Bundle("tiny", (SignedLoader(tiny("kfunc"), tool="bpfseal 0.0.1"),))
    before = encode(made_before)
    after = encode(sign_bundle(made_before, signer(), schemes=["kfunc"]))
    lost = set(before) - set(after)
    assert len(lost) == 1  # the manifest
    assert [name for name in before.keys() & after.keys() if before[name] != after[name]] == [
        "index.json"
    ]


def test_a_failure_leaves_no_half_file_and_the_old_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "a.bpfseal"
    target.write_bytes(b"old")
    broken = Bundle("x", (SignedLoader(Loader("kfunc", "x", b"1", b"", b"", (), ())),))
    with pytest.raises(InputError):
        store.write_bundle(broken, target)
    assert target.read_bytes() == b"old"
    assert listing(tmp_path) == ["a.bpfseal"]


def test_a_path_that_cannot_be_written_is_a_capability_error(tmp_path: Path) -> None:
    with pytest.raises(CapabilityError, match="cannot be written"):
        store.write_bundle(BUNDLE, tmp_path / "no" / "such" / "folder" / "a.bpfseal")
